/** The list of planted bugs keeps up with the code: each of them still applies, so that none is hunted in vain. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { PLANTED_BUGS } from "../../evaluation/planted-bugs/all.ts";
import { changed } from "../../evaluation/planted-bugs/mutation.ts";

const root = join(import.meta.dirname, "../../..");

describe("planted bugs", () => {
  it("each changes text that occurs exactly once in the tree as it is", () => {
    for (const { name, changes } of PLANTED_BUGS) {
      const texts = new Map<string, string>();
      for (const change of changes) {
        const text = texts.get(change.file) ?? readFileSync(join(root, change.file), "utf8");
        let planted = text;
        expect(() => {
          planted = changed(text, change);
        }, name).not.toThrow();
        expect(planted, name).not.toBe(text);
        texts.set(change.file, planted);
      }
    }
  });

  it("have names of their own, and are more than a few", () => {
    const names = PLANTED_BUGS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(PLANTED_BUGS.filter(({ redundant }) => redundant === undefined).length).toBeGreaterThanOrEqual(30);
  });

  it("a change that does not fit, or fits twice, is refused", () => {
    const change = { file: "a.ts", find: "b", replace: "c" };
    expect(changed("abc", change)).toBe("acc");
    expect(() => changed("ac", change)).toThrow("a.ts: found 0 times");
    expect(() => changed("abbc", change)).toThrow("a.ts: found 2 times");
  });
});
