/**
 * Every scenario does what its transcript says. `npm run scenario -- --update` records anew; the change is then reviewed as a
 * diff. How scenarios are written: script.ts.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { transcriptOf } from "./transcript.ts";

const files = readdirSync(import.meta.dirname).filter((file) => file.endsWith(".txt"));

describe("scenarios", () => {
  for (const file of files) {
    it(file.replace(/\.txt$/, "").replaceAll("-", " "), async () => {
      const path = join(import.meta.dirname, file);
      const transcript = transcriptOf(readFileSync(path, "utf8"));
      expect(transcript).not.toContain("VIOLATION");
      await expect(transcript).toMatchFileSnapshot(path);
    });
  }
});

describe("transcripts", () => {
  const recorded = transcriptOf("# One request.\n> cluster n=4\n> request a\n> deliver all\n> state\n");

  it("repeat themselves, comments and commands included", () => {
    expect(recorded).toContain(
      "# One request.\n> cluster n=4\n  n=4 f=1 Q=3 W=2\n> request a\n  0 -> all PROPOSE r0 i1 [a]",
    );
    expect(recorded).toContain("0,1,2,3 decide i1 [a]");
    expect(transcriptOf(recorded)).toBe(recorded);
  });

  it("differ from a recording that says otherwise", () => {
    const otherwise = recorded.replace("0,1,2,3 decide i1 [a]", "0,1,2 decide i1 [a]");
    expect(otherwise).not.toBe(recorded);
    expect(transcriptOf(otherwise)).toBe(recorded);
  });

  it("refuse what is no command, and forging a correct replica's word", () => {
    expect(() => transcriptOf("> cluster n=4\n> explode 3\n")).toThrow("line 2: no command explode");
    expect(() => transcriptOf("> cluster n=4\n> forge 1>2 WRITE r0 i1 [a]\n")).toThrow("replica 1 is correct");
    expect(() => transcriptOf("> cluster n=4 byzantine=3\n> certificate c of r0 i1 [a] by 0,1,3\n")).toThrow(
      "replica 0 never wrote that",
    );
  });
});
