/** What became of requests whose callers had given up, for `outcome()`: the newest ones, bounded. */
import type { Resolution } from "../protocol/commands.ts";
import type { ResolveTarget } from "../protocol/request.ts";

const OUTCOMES_MAX = 1_024;

function nameOf(target: ResolveTarget): string {
  return `${target.session}.${target.sequence}`;
}

export class Outcomes {
  readonly #byName = new Map<string, Resolution>();

  get(target: ResolveTarget): Resolution | undefined {
    return this.#byName.get(nameOf(target));
  }

  set(target: ResolveTarget, resolution: Resolution): void {
    this.#byName.set(nameOf(target), resolution);
    if (this.#byName.size <= OUTCOMES_MAX) return;
    for (const oldest of this.#byName.keys()) {
      this.#byName.delete(oldest);
      return;
    }
  }
}
