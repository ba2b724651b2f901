/** Import of many records with a replica killed half-way, exported and compared: the demo of the README on generated records. */
import { expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import { runImportDemo } from "../evaluation/demo-debian.ts";
import { compiled } from "./programs.ts";

const RECORDS = 5_000;

/** About 1 KB each, keys in no order, some of them and some values not UTF-8. */
function generated(): { key: Uint8Array; value: Uint8Array }[] {
  return Array.from({ length: RECORDS }, (_, index) => {
    const name = `package-${(index * 7_919) % RECORDS}/${index % 10}.${index % 7}`;
    const key = index % 50 === 0 ? Buffer.concat([Buffer.from([0xff, 0xfe]), utf8(name)]) : utf8(name);
    const text = `Package: ${name}\nDescription: "quoted" \\ and ünïcode\n`.repeat(1 + (index % 40));
    const value = index % 77 === 0 ? Buffer.alloc(index % 1_000, index % 256) : utf8(text);
    return { key, value };
  });
}

test("5,000 records are imported while a replica is killed, and exported as they were", async () => {
  const records = generated();
  const programs = { kv: compiled("cli/main"), server: compiled("server/main") };
  const result = await runImportDemo({ records, programs });
  expect(result).toMatchObject({ imported: RECORDS, exported: RECORDS });
  expect(result.killed).not.toBe(0);
  expect(result.killedAtRevision).toBeLessThan(RECORDS);
});
