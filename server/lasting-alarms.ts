/** What an operator should look at whatever runs at the moment: it outlives the replica that met it, and ends with the process. */
import type { Repair } from "../storage/contract.ts";
import type { Alarm } from "./driver-contract.ts";

export class LastingAlarms {
  readonly #wallMs: () => number;
  /** The newest repair of each store: one must not hide the other. */
  readonly #repairs = new Map<Repair["store"], Alarm>();
  #rollback: Alarm | null = null;
  #unfounded: Alarm | null = null;

  constructor(wallMs: () => number) {
    this.#wallMs = wallMs;
  }

  get list(): readonly Alarm[] {
    const others = [this.#rollback, this.#unfounded].filter((alarm) => alarm !== null);
    return [...this.#repairs.values(), ...others];
  }

  /** What the cluster begins with is not here: why. Null: it is, or is not needed any more. */
  get unfounded(): string | null {
    return this.#unfounded?.detail ?? null;
  }

  set unfounded(detail: string | null) {
    if (detail !== this.unfounded) this.#unfounded = detail === null ? null : this.#alarm("SNAPSHOT_MISSING", detail);
  }

  repaired({ store, reason, setAside }: Repair): void {
    const where = setAside === null ? "" : `; what was there lies in ${setAside}`;
    this.#repairs.set(store, this.#alarm("REPAIRED", `the ${store} store was begun anew: ${reason}${where}`));
  }

  rolledBack(detail: string): void {
    this.#rollback = this.#alarm("ROLLED_BACK", detail);
  }

  #alarm(code: string, detail: string): Alarm {
    return { code, detail, sinceMs: this.#wallMs() };
  }
}
