/** A replicated counter: what it counts survives f lying replicas. The whole service; docs/library.md explains it. */
import { type Service, type ServiceState, textOf, utf8 } from "quorate/server";

/** Commands: "+5" adds and answers the new total, "?" answers it. Text in, text out; anything else is answered with "error". */
export class Counter implements Service {
  readonly #state: ServiceState;
  #total = 0n;

  constructor(state: ServiceState) {
    this.#state = state;
  }

  load(_key: string, value: Uint8Array): void {
    this.#total = BigInt(textOf(value) ?? "");
  }

  execute(command: Uint8Array): Uint8Array {
    const added = /^\+(\d{1,9})$/.exec(textOf(command) ?? "")?.[1];
    if (added === undefined) return this.query(command) ?? utf8("error");
    this.#total += BigInt(added);
    this.#state.set("total", utf8(`${this.#total}`));
    return utf8(`${this.#total}`);
  }

  query(command: Uint8Array): Uint8Array | null {
    return textOf(command) === "?" ? utf8(`${this.#total}`) : null;
  }
}
