/**
 * What happened in a core schedule: a digest over every input of every core, and, when somebody listens, a line for each.
 * Two runs of one schedule must agree on the digest.
 */
import type { Message } from "../../protocol/messages.ts";
import type { Input } from "../../server/consensus/contract.ts";
import { inWords } from "./words.ts";

const INPUTS = ["message", "request", "tick", "journaled", "verified", "executed", "connected", "draining", "stop"];

export class CoreTrace {
  readonly counts = new Map<string, number>();
  readonly #listener: ((line: string) => void) | null;
  #low = 0x811c_9dc5;
  #high = 0x0131_7a65;
  #nowUs = 0;

  constructor(listener: ((line: string) => void) | null) {
    this.#listener = listener;
  }

  input(slot: number, input: Input): void {
    this.#mix(slot * 16 + INPUTS.indexOf(input.type));
    if (input.type === "tick") this.#nowUs = input.nowUs;
    if (input.type === "message") this.#message(input.from, input.message);
    else if (input.type === "journaled" || input.type === "verified") this.#mix(input.ticket);
    else if (input.type === "tick") this.#mix(input.nowUs);
    if (this.#listener && input.type !== "tick") this.note(`r${slot} ${wordsOf(input)}`);
  }

  /** A line without weight in the digest. */
  note(line: string): void {
    this.#listener?.(`${(this.#nowUs / 1_000_000).toFixed(3).padStart(9)}  ${line}`);
  }

  count(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#mix(name.length);
    if (this.#listener) this.note(`-- ${name}`);
  }

  digest(): string {
    return [this.#low, this.#high].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("");
  }

  #message(from: number, message: Message): void {
    this.#mix(from);
    this.#mix(message.type.length * 1_000_003 + message.regency);
    if ("instance" in message) this.#mix(message.instance);
    if ("digest" in message) this.#mix(message.digest.charCodeAt(0) * 256 + message.digest.charCodeAt(31));
    if ("batch" in message) this.#mix(message.batch.length);
    if ("signature" in message) this.#mix(message.signature[0] ?? 0);
  }

  #mix(number: number): void {
    this.#low = Math.imul(this.#low ^ (number | 0), 0x0100_0193);
    this.#high = Math.imul(this.#high ^ ((number / 0x1_0000) | 0) ^ (this.#low >>> 7), 0x85eb_ca6b);
  }
}

function wordsOf(input: Input): string {
  switch (input.type) {
    case "message":
      return `< r${input.from}  ${inWords(input.message)}`;
    case "request":
      return `< client  ${input.request.session}.${input.request.sequence}`;
    case "connected":
      return `connected to r${input.peer}`;
    case "executed":
      return `executed ${input.instance}`;
    case "verified":
      return `verified ${input.valid.filter((ok) => ok).length} of ${input.valid.length}`;
    default:
      return input.type;
  }
}
