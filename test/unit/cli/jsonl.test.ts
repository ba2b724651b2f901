/** Records as JSON lines: any bytes come back; a wrong line is refused with its reason. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isBlank, LINE_BYTES_MAX, LineError, lineGroups, parseRecordLine, recordLine } from "../../../cli/jsonl.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { KEY_BYTES_MAX, VALUE_BYTES_MAX } from "../../../protocol/limits.ts";

const roundTrip = (key: Uint8Array, value: Uint8Array): void => {
  const line = recordLine({ key, value });
  expect(line).not.toContain("\n");
  const record = parseRecordLine(utf8(line));
  expect(Buffer.compare(record.key, key)).toBe(0);
  expect(Buffer.compare(record.value, value)).toBe(0);
};

describe("records", () => {
  test("any bytes round-trip", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 60 }), fc.uint8Array({ maxLength: 60 }), roundTrip));
  });

  test("any text round-trips, byte order marks and separators included", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 20 }), fc.string({ unit: "grapheme" }), (k, v) =>
        roundTrip(utf8(k), utf8(v)),
      ),
    );
    roundTrip(utf8("\ufeffkey"), utf8("\ufeff\u2028\u0000\r\n"));
  });

  test("the largest record fits a line", () => {
    const key = new Uint8Array(KEY_BYTES_MAX);
    const value = new Uint8Array(VALUE_BYTES_MAX);
    expect(utf8(recordLine({ key, value })).length).toBeLessThan(LINE_BYTES_MAX);
    roundTrip(key, value);
  });

  test("what kv range -o json prints can be imported", () => {
    const line = utf8('{"key":"k","value":"v","createRevision":"1","modRevision":"2","version":2}');
    expect(parseRecordLine(line)).toEqual({ key: utf8("k"), value: utf8("v") });
  });

  test.each([
    ["{", /not JSON/],
    ["[]", /not an object/],
    ["null", /not an object/],
    ['"k"', /not an object/],
    ['{"key":"k"}', /value is missing/],
    ['{"value":"v"}', /key is missing/],
    ['{"key":1,"value":"v"}', /key is not a string/],
    ['{"key":"k","value":null}', /value is not a string/],
    ['{"key":"","value":"v"}', /key is empty/],
    ['{"key":"k","keyBase64":"aw==","value":"v"}', /both key and keyBase64/],
    ['{"keyBase64":"aw=","value":"v"}', /not base64/],
    ['{"keyBase64":"a_==","value":"v"}', /not base64/],
    ['{"keyBase64":7,"value":"v"}', /not a string/],
    ['{"key":"k","value":"v","ttl":3}', /unknown field "ttl"/],
    ['{"key":"\\ud800","value":"v"}', /surrogate/],
    [`{"key":"${"k".repeat(KEY_BYTES_MAX + 1)}","value":"v"}`, /at most 4096/],
    [`{"key":"k","value":"${"v".repeat(VALUE_BYTES_MAX + 1)}"}`, /at most 1048576/],
  ])("%.60s is refused", (line, reason) => {
    expect(() => parseRecordLine(utf8(line))).toThrow(LineError);
    expect(() => parseRecordLine(utf8(line))).toThrow(reason);
  });

  test("bytes that are not UTF-8 are refused, not replaced", () => {
    const line = Buffer.concat([utf8('{"key":"k","value":"'), Uint8Array.of(0xff), utf8('"}')]);
    expect(() => parseRecordLine(line)).toThrow(/not UTF-8/);
  });
});

async function* pieces(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function linesOf(chunks: readonly Uint8Array[]): Promise<string[]> {
  const lines: string[] = [];
  for await (const group of lineGroups(pieces(chunks))) {
    for (const line of group.lines) lines.push(Buffer.from(line).toString("latin1"));
  }
  return lines;
}

describe("lines", () => {
  test("are the same wherever the input is cut", async () => {
    const text = fc.array(fc.constantFrom("a", "b", "\n", "\r"), { maxLength: 30 }).map((parts) => parts.join(""));
    await fc.assert(
      fc.asyncProperty(text, fc.array(fc.nat(30), { maxLength: 6 }), async (input, cuts) => {
        const bytes = utf8(input);
        const edges = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
        const chunks = edges.slice(1).map((end, index) => bytes.subarray(edges[index], end));
        const expected = input.split("\n");
        if (expected.at(-1) === "") expected.pop();
        expect(await linesOf(chunks)).toEqual(expected);
      }),
    );
  });

  test("a byte order mark at the start is passed over", async () => {
    expect(await linesOf([Uint8Array.of(0xef, 0xbb, 0xbf), utf8("a\nb")])).toEqual(["a", "b"]);
  });

  test("one that never ends is refused before it fills the memory", async () => {
    const endless = Array.from({ length: 9 }, () => new Uint8Array(1024 * 1024));
    await expect(linesOf(endless)).rejects.toThrow(/longer than/);
  });

  test("blank ones", () => {
    expect(isBlank(utf8(" \t\r"))).toBe(true);
    expect(isBlank(utf8(" {"))).toBe(false);
  });
});
