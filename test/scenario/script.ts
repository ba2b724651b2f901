/**
 * How a scenario is written. Lines that start with ">" are commands, "#" starts a comment, and indented lines are what a
 * command made the replicas do, as it was recorded; "1,2 ->" are several that did the same. r0 is a regency, i1 an instance,
 * [a b] the batch of requests a and b, or the history that ends with it; [a b]' is another batch of the same requests.
 *
 * | command | meaning |
 * |---|---|
 * | `cluster n=4 f=1 byzantine=3` | a new cluster; a Byzantine replica says only what the script forges, with its own keys; `mode=cft` |
 * | `cluster n=4 f=1 byzantine=3` | a new cluster; a Byzantine replica says only what the script forges, with its own keys |
 * | `cluster n=4 rotation=2` | leaders take turns of two instances: the malicious fault model |
 * | `request a b to 0,1 proven-at 0 by alice signed` | a client sends requests named a and b; `to` and `proven-at` default to all |
 * | `deliver 0>1 *>2 WRITE ACCEPT` | what is on the way on these links, of these kinds, arrives; kinds or links may be left out |
 * | `deliver all`, `deliver all STOP` | also what is sent in answer, until nothing of it is on the way |
 * | `drop 0>1,2 WRITE` | it is lost |
 * | `block 0>*`, `unblock` | lost as it is sent, from now on |
 * | `cut 3`, `mend 3` | its links break, with what is on the way; fresh ones stand, and both ends send again |
 * | `hold journal 1`, `hold verify 1`, `release journal 1` | synced writes or signature checks take their time |
 * | `tick 1000ms`, `tick 1000ms 1,2` | time passes, and all or these notice |
 * | `settle` | time passes and everything arrives until nothing more happens |
 * | `crash 2`, `crash 2 keeping 1`, `restart 2`, `stop 2`, `drain 2` | of the held writes the first ones may be on disk |
 * | `certificate c of r0 i1 [a] by 0,1,2` | from WRITEs that were really sent; `2!` with a bad signature of 2 |
 * | `certificate d from c as r1 i2 [b]` | the votes of c presented for something else; `view=1` |
 * | `stopdata s of 3 r1 none`, `stopdata s of 3 r1 c` | signed by 3, for use in a forged SYNC; `3!`: badly signed |
 * | `forge 0>1 PROPOSE r0 i1 [a]` | 0 sends what follows; WRITE, ACCEPT, STOP r1, STOPDATA r1 none or c, SYNC r1 [a] of 0,2,s |
 * | `state`, `disk 1` | where everybody stands; what 1 has journaled |
 *
 * STATUS is sent and delivered, but not shown.
 */
export interface Command {
  readonly text: string;
  readonly verb: string;
  readonly words: readonly string[];
}

export class ScriptError extends Error {}

export function commandOf(text: string): Command {
  // A batch name is one word: "[a b]".
  const words = text.match(/\[[^\]]*\]'*|\S+/g) ?? [];
  const [verb = "", ...rest] = words;
  return { text, verb, words: rest };
}

export function numbers(text: string): number[] {
  const found = text.split(",").map(Number);
  if (found.some((number) => !Number.isInteger(number) || number < 0)) throw new ScriptError(`no replicas: ${text}`);
  return found;
}

/** The word after `keyword`, or undefined. */
export function after(words: readonly string[], keyword: string): string | undefined {
  const at = words.indexOf(keyword);
  return at < 0 ? undefined : words[at + 1];
}

/** The value of `name=value`, or undefined. */
export function setting(words: readonly string[], name: string): string | undefined {
  return words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);
}

/** "r0", "i1" and "[a]" among these words. */
export interface Place {
  readonly regency: number;
  readonly instance: number;
  readonly batch: string | null;
}

export function placeOf(words: readonly string[]): Place {
  const number = (letter: string): number =>
    Number(words.find((word) => new RegExp(`^${letter}\\d+$`).test(word))?.slice(1) ?? 0);
  return { regency: number("r"), instance: number("i"), batch: words.find((word) => word.startsWith("[")) ?? null };
}

/** Which messages on which links: "0>1,2 *>3 WRITE"; without a link every one, without a type every one. */
export function selector(words: readonly string[]): (link: string, type: string) => boolean {
  const links = words.filter((word) => word.includes(">")).map((word) => word.split(">") as [string, string]);
  const types = words.filter((word) => /^[A-Z_]+$/.test(word));
  const stray = words.filter((word) => !word.includes(">") && !types.includes(word) && word !== "all");
  if (stray.length > 0) throw new ScriptError(`neither a link nor a type: ${stray.join(" ")}`);
  const within = (pattern: string, id: string): boolean => pattern === "*" || pattern.split(",").includes(id);
  return (link, type) => {
    const [from, to] = link.split(">") as [string, string];
    const onLink = links.length === 0 || links.some((pair) => within(pair[0], from) && within(pair[1], to));
    return onLink && (types.length === 0 || types.includes(type));
  };
}
