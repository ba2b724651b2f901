/** docs/errors.md explains every error code, and no other. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const source = readFileSync(new URL("../../../protocol/errors.ts", import.meta.url), "utf8");
const document = readFileSync(new URL("../../../docs/errors.md", import.meta.url), "utf8");

function codes(): string[] {
  const union = /export type ErrorCode =([\s\S]*?);/.exec(source)?.[1] ?? "";
  return [...union.matchAll(/"([A-Z_]+)"/g)].map((match) => match[1] ?? "");
}

test("every code of protocol/errors.ts has its row: meaning, retry, what to do", () => {
  const rows = new Map(
    document
      .split("\n")
      .filter((line) => /^\| `[A-Z_]+` /.test(line))
      .map((line) => {
        const [, code = "", ...cells] = line.split("|").map((cell) => cell.trim());
        return [code.replaceAll("`", ""), cells.slice(0, 3)] as const;
      }),
  );
  expect(codes().length).toBeGreaterThan(30);
  expect([...rows.keys()].sort()).toEqual(codes().sort());
  for (const [code, cells] of rows) {
    expect([code, cells.length, cells.every((cell) => cell.length > 1)]).toEqual([code, 3, true]);
  }
});
