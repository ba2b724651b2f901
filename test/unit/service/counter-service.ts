/** A second, tiny service: proves that the Service contract does without the key-value store. */
import { bytesOf, latin1 } from "../../../protocol/bytes.ts";
import type { ExecutionContext, Service, ServiceState } from "../../../server/service/contract.ts";

/** Counters by name: the command `+name` adds one, `?name` reads; anything else is answered with nothing. */
export class CounterService implements Service {
  readonly #state: ServiceState;
  #revision = 0;

  constructor(state: ServiceState) {
    this.#state = state;
  }

  get revision(): number {
    return this.#revision;
  }

  load(_name: string, value: Uint8Array): void {
    this.#revision += Number(latin1(value));
  }

  execute(command: Uint8Array, _context: ExecutionContext): Uint8Array {
    const text = latin1(command);
    if (!text.startsWith("+")) return this.query(command) ?? new Uint8Array(0);
    const name = text.slice(1);
    const value = bytesOf(`${this.#count(name) + 1}`);
    this.#revision += 1;
    this.#state.set(name, value);
    return value;
  }

  query(command: Uint8Array): Uint8Array | null {
    const text = latin1(command);
    return text.startsWith("?") ? bytesOf(`${this.#count(text.slice(1))}`) : null;
  }

  grows(command: Uint8Array): boolean {
    return latin1(command).startsWith("+");
  }

  #count(name: string): number {
    return Number(latin1(this.#state.get(name) ?? bytesOf("0")));
  }
}
