/** The block checksums of LevelDB tables. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Level } from "level";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { crc32c, damagedTables, tableIntact } from "../../../storage/tables.ts";

describe("crc32c", () => {
  it.each([
    ["", 0],
    ["123456789", 0xe306_9283],
    ["a", 0xc1d0_4330],
  ])("of %j (RFC 3720 and its like)", (text, expected) => {
    expect(crc32c(Buffer.from(text))).toBe(expected);
  });

  it("of 32 bytes of zeros and of ones (RFC 3720, B.4)", () => {
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a91_36aa);
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8_ab43);
  });
});

describe("tableIntact", () => {
  let directory: string;
  let table: Buffer;
  let name: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "quorate-tables-"));
    const level = new Level(directory, { compression: false });
    for (let key = 0; key < 500; key++) await level.put(`key ${key}`, "value ".repeat(key % 30));
    await level.close();
    const reopened = new Level(directory, { compression: false });
    await reopened.open();
    await reopened.close();
    name = (await readdir(directory)).find((file) => file.endsWith(".ldb")) ?? "";
    table = await readFile(join(directory, name));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it("accepts a table of many blocks", () => {
    expect(table.length).toBeGreaterThan(20_000);
    expect(tableIntact(table)).toBe(true);
  });

  it("notices every flipped bit outside the footer's padding", () => {
    const padding: number[] = [];
    for (let at = 0; at < table.length; at += at < table.length - 200 ? 97 : 1) {
      const flipped = Buffer.from(table);
      flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
      if (tableIntact(flipped)) padding.push(at);
    }
    // Zeros between the two handles and the magic number, which LevelDB does not read either.
    expect(padding.every((at) => at >= table.length - 48 && at < table.length - 8)).toBe(true);
  });

  it("takes any other bytes for no table, without throwing", () => {
    for (const length of [0, 1, 47, 48, 49, 1000]) {
      expect(tableIntact(table.subarray(0, length))).toBe(false);
      expect(tableIntact(table.subarray(table.length - length))).toBe(false);
    }
  });

  it("finds damaged tables by number, and none where there is no directory", async () => {
    expect(await damagedTables(join(directory, "missing"))).toEqual(new Set());
    expect(await damagedTables(directory)).toEqual(new Set());
    await writeFile(join(directory, name), table.subarray(0, 1000));
    expect(await damagedTables(directory)).toEqual(new Set([Number.parseInt(name, 10)]));
  });
});
