/** Runs a scenario and writes its transcript: the same text with what the replicas did now under each command. */
import { InvariantViolation } from "../../protocol/errors.ts";
import { faultsTolerated } from "../../protocol/view.ts";
import { Violation } from "../simulation/core-cluster.ts";
import { Forgery } from "./forgery.ts";
import { after, type Command, commandOf, numbers, ScriptError, setting } from "./script.ts";
import { type Held, type Line, ScriptedCluster } from "./scripted-cluster.ts";
import { messageWords, recordWords } from "./words.ts";

/** The verb of a sentence about several. */
function plural(text: string): string {
  return text
    .replace(/^is\b/, "are")
    .replace(/^crashes\b/, "crash")
    .replace(/^(?!crash\b)(\w+)s\b/, "$1");
}

function sentence({ actors, text }: Line): string {
  const subject = [...actors].sort((a, b) => a - b).join(",");
  return `${subject} ${actors.length > 1 ? plural(text) : text}`;
}

function microseconds(text: string): number {
  const match = /^(\d+)(ms|s)$/.exec(text);
  if (!match) throw new ScriptError(`no duration: ${text}`);
  return Number(match[1]) * (match[2] === "s" ? 1_000_000 : 1_000);
}

class Scenario {
  #cluster: ScriptedCluster | null = null;
  #forgery: Forgery | null = null;

  /** What happened, as lines. */
  run(command: Command): string[] {
    if (command.verb === "cluster") return this.#found(command.words);
    if (!this.#cluster || !this.#forgery) throw new ScriptError("a scenario starts with: cluster n=4");
    const own = this.#perform(this.#cluster, this.#forgery, command);
    return [...own, ...this.#cluster.takeLines().map(sentence)];
  }

  #found(words: readonly string[]): string[] {
    const n = Number(setting(words, "n") ?? 4);
    const mode = setting(words, "mode") === "cft" ? "cft" : "bft";
    const f = Number(setting(words, "f") ?? faultsTolerated({ n, mode }));
    const byzantine = numbers(setting(words, "byzantine") ?? "").slice(setting(words, "byzantine") ? 0 : 1);
    const rotation = Number(setting(words, "rotation") ?? 0);
    this.#cluster = new ScriptedCluster({ n, f, mode, byzantine, rotation, requestTimeoutMs: 1_000 });
    this.#forgery = new Forgery(this.#cluster);
    const { quorum, weakQuorum } = this.#cluster.core.view;
    return [`n=${n} f=${f} Q=${quorum} W=${weakQuorum}`];
  }

  #perform(cluster: ScriptedCluster, forgery: Forgery, { verb, words }: Command): string[] {
    const [first = "", second = ""] = words;
    switch (verb) {
      case "request":
        this.#request(cluster, words);
        return [];
      case "deliver":
        if (first === "all") cluster.deliverAll(words);
        else if (!cluster.deliver(words)) return ["(nothing is on the way)"];
        return [];
      case "drop":
        return [`(${cluster.drop(words)} lost)`];
      case "block":
        cluster.block(words);
        return [];
      case "unblock":
        cluster.unblock();
        return [];
      case "cut":
        for (const id of numbers(first)) cluster.cut(id);
        return [];
      case "mend":
        for (const id of numbers(first)) cluster.mend(id);
        return [];
      case "hold":
        cluster.hold(first as Held, numbers(second));
        return [];
      case "release":
        cluster.release(first as Held, numbers(second));
        return [];
      case "tick":
        cluster.tick(microseconds(first), second ? numbers(second) : cluster.ids);
        return [];
      case "settle":
        cluster.settle(microseconds(first));
        return [];
      case "crash":
        for (const id of numbers(first)) cluster.crash(id, Number(after(words, "keeping") ?? 0));
        return [];
      case "restart":
        for (const id of numbers(first)) cluster.restart(id);
        return [];
      case "stop":
        for (const id of numbers(first)) cluster.stop(id);
        return [];
      case "drain":
        cluster.drain(Number(first));
        return [];
      case "certificate": {
        const made = forgery.certificate(first, words.slice(1));
        return [`${first}: ${recordWords(cluster.names, made)} of ${made.votes.map((vote) => vote.replica).join(",")}`];
      }
      case "stopdata": {
        const made = forgery.stopData(first, words.slice(1));
        return [`${first}: ${made.replica} accepted ${recordWords(cluster.names, made.record)}`];
      }
      case "forge":
        return this.#forge(cluster, forgery, words);
      case "state":
        cluster.describe();
        return [];
      case "disk":
        return cluster.disk(Number(first));
      default:
        throw new ScriptError(`no command ${verb}`);
    }
  }

  #request(cluster: ScriptedCluster, words: readonly string[]): void {
    const end = words.findIndex((word) => ["to", "proven-at", "by", "signed"].includes(word));
    const those = (keyword: string): number[] => {
      const value = after(words, keyword);
      return value === undefined ? cluster.ids : numbers(value);
    };
    for (const name of end < 0 ? words : words.slice(0, end)) {
      cluster.request(name, {
        client: after(words, "by") ?? "client",
        to: those("to"),
        provenAt: those("proven-at"),
        signed: words.includes("signed"),
      });
    }
  }

  #forge(cluster: ScriptedCluster, forgery: Forgery, [link = "", ...words]: readonly string[]): string[] {
    const [from = "", to = ""] = link.split(">");
    return numbers(from).map((sender) => {
      const receivers = to === "*" ? cluster.ids.filter((id) => id !== sender) : numbers(to);
      const message = forgery.message(sender, words);
      for (const id of receivers) cluster.post(sender, id, message);
      return `${sender} -> ${to === "*" ? "all" : to} ${messageWords(cluster.names, message)}`;
    });
  }
}

/** Comments, empty lines and commands as they are; what is recorded under the commands is made anew. */
export function transcriptOf(text: string): string {
  const scenario = new Scenario();
  const out: string[] = [];
  text.split("\n").forEach((line, index) => {
    if (line.startsWith("  ")) return;
    out.push(line);
    if (!line.startsWith("> ")) {
      if (line !== "" && !line.startsWith("#"))
        throw new ScriptError(`line ${index + 1} is neither command nor comment`);
      return;
    }
    try {
      for (const happened of scenario.run(commandOf(line.slice(2)))) out.push(`  ${happened}`);
    } catch (error) {
      if (error instanceof Violation || error instanceof InvariantViolation) out.push(`  VIOLATION: ${error.message}`);
      else if (error instanceof ScriptError) throw new ScriptError(`line ${index + 1}: ${error.message}`);
      else throw error;
    }
  });
  return out.join("\n");
}
