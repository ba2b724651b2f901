/** The package index as records: every stanza once, byte for byte, wherever the input is cut. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { recordsOf, stanzas } from "../../evaluation/debian-index.ts";

async function* pieces(parts: readonly string[]): AsyncGenerator<string> {
  yield* parts;
}

const stanza = (name: string, more = ""): string => `Package: ${name}\nVersion: 1.0-1\nArchitecture: amd64${more}`;

test("stanzas are the same wherever the input is cut", async () => {
  const wanted = [stanza("a"), stanza("b", "\nDescription: x\n y\n ."), stanza("c")];
  const text = `${wanted.join("\n\n")}\n\n`;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(text.length), { maxLength: 8 }), async (cuts) => {
      const edges = [0, ...cuts.sort((x, y) => x - y), text.length];
      const parts = edges.slice(1).map((end, index) => text.slice(edges[index], end));
      const found: string[] = [];
      for await (const part of stanzas(pieces(parts))) found.push(part);
      expect(found).toEqual(wanted);
    }),
  );
});

test("keys name package, version and architecture, and are unique; values keep their bytes", async () => {
  const umlaut = Buffer.from(stanza("ä"), "utf8").toString("latin1");
  const records: string[][] = [];
  for await (const { key, value } of recordsOf(pieces([umlaut, stanza("b"), stanza("b")]))) {
    records.push([Buffer.from(key).toString(), Buffer.from(value).toString("latin1")]);
  }
  expect(records.map(([key]) => key)).toEqual(["ä/1.0-1/amd64", "b/1.0-1/amd64", "b/1.0-1/amd64#2"]);
  expect(records[0]?.[1]).toBe(umlaut);
});
