/** The last inputs of the core by name, for the log of a halt. */
import type { Input } from "./consensus/contract.ts";

const KEPT = 32;

export class RecentInputs {
  readonly #names: string[] = [];
  #next = 0;

  add(input: Input): void {
    if (input.type !== "tick") this.#names[this.#next++ % KEPT] = nameOf(input);
  }

  /** Oldest first. */
  list(): string[] {
    const at = this.#next % KEPT;
    return [...this.#names.slice(at), ...this.#names.slice(0, at)];
  }
}

function nameOf(input: Input): string {
  if (input.type !== "message") return input.type;
  const { from, message } = input;
  const instance = "instance" in message ? ` ${message.instance}` : "";
  return `${message.type}${instance} from ${from} in view ${message.view} regency ${message.regency}`;
}
