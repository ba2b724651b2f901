/** The forms of results: what a terminal sees can neither break a line nor be mistaken, JSON loses nothing. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { deletedText, entryJson, entryTable } from "../../../cli/commands/get.ts";
import { swappedText, writtenText } from "../../../cli/commands/put.ts";
import { bytesField, printable, printableText, tableText } from "../../../cli/text.ts";
import { utf8 } from "../../../protocol/bytes.ts";

const anyBytes = fc.uint8Array({ maxLength: 40 });

describe("printable", () => {
  test("text stays, control characters and direction marks are escaped", () => {
    expect(printable(utf8("grüße 世界"))).toBe("grüße 世界");
    expect(printable(utf8("a\tb\nc\\d"))).toBe("a\\tb\\nc\\\\d");
    expect(printable(utf8("\u001b[31m\u0085\u202e"))).toBe("\\x1b[31m\\u{85}\\u{202e}");
    expect(printable(Uint8Array.of(0x61, 0xff, 0x0a))).toBe("a\\xff\\n");
  });

  test("never holds a control character, and differs for different bytes", () => {
    fc.assert(
      fc.property(anyBytes, anyBytes, (a, b) => {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point
        expect(printable(a)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
        if (Buffer.compare(a, b) !== 0) expect(printable(a)).not.toBe(printable(b));
      }),
    );
    expect(printableText("\u2028")).toBe("\\u{2028}");
  });
});

test("bytes that are not UTF-8 go to a base64 field", () => {
  expect(bytesField("key", utf8("k"))).toEqual({ key: "k" });
  expect(bytesField("value", Uint8Array.of(0xff, 0))).toEqual({ valueBase64: "/wA=" });
  expect(bytesField("value", Uint8Array.of(0xef, 0xbb, 0xbf, 0x61))).toEqual({ value: "\ufeffa" });
});

test("tables align by character and have no trailing space", () => {
  expect(
    tableText(
      ["K", "VALUE"],
      [
        ["größe", "1"],
        ["b", ""],
      ],
    ),
  ).toBe("K      VALUE\ngröße  1\nb\n");
});

describe("stable json forms", () => {
  const entry = {
    key: utf8("k"),
    value: utf8("v"),
    createRevision: 3n,
    modRevision: 9_007_199_254_740_991n,
    version: 2,
  };

  test("an entry: revisions are strings", () => {
    expect(entryJson(entry)).toBe(
      '{"key":"k","value":"v","createRevision":"3","modRevision":"9007199254740991","version":2}',
    );
    expect(entryJson({ ...entry, value: null })).toBe(
      '{"key":"k","createRevision":"3","modRevision":"9007199254740991","version":2}',
    );
    expect(entryTable([entry])).toContain("k    3        9007199254740991  2        v\n");
  });

  test("a put, in every form", () => {
    const written = { key: utf8("k"), revision: 12n, createRevision: 10n, version: 3 };
    expect(writtenText("simple", written)).toBe("revision 12\n");
    expect(writtenText("raw", written)).toBe("12");
    expect(writtenText("json", written)).toBe('{"key":"k","revision":"12","createRevision":"10","version":3}\n');
    expect(writtenText("table", written)).toBe("KEY  REVISION  CREATED  VERSION\nk    12        10       3\n");
  });

  test("a compare-and-swap and a delete that did nothing", () => {
    const key = utf8("k");
    expect(swappedText("json", { key, swapped: false, revision: 0n })).toBe(
      '{"key":"k","swapped":false,"revision":"0"}\n',
    );
    expect(swappedText("simple", { key, swapped: false, revision: 7n })).toBe("not swapped revision 7\n");
    expect(deletedText("json", { key, deleted: false, revision: 7n })).toBe(
      '{"key":"k","deleted":false,"revision":"7"}\n',
    );
    expect(deletedText("simple", { key, deleted: false, revision: 7n })).toBe("");
    expect(deletedText("raw", { key, deleted: true, revision: 8n })).toBe("8");
  });
});
