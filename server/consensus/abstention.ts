/**
 * What may have left before a restart and is not known any more (docs/protocol.md section 4, "Restart rules"): in which ballots
 * this replica must not speak as if for the first time.
 *
 * Invariants
 *  1. After anything but a clean stop no PROPOSE, SYNC or WRITE leaves in the regency of then up to the instance above the
 *     journal's end.
 *  2. ACCEPTs may leave there: they were journaled first. In cft mode, which has no WRITE, nobody but a leader has anything to
 *     abstain from, so none waits for instances to pass.
 *  3. Whose journal is lost says nothing at all as long as the recollection wants silence.
 */
import type { View } from "../../protocol/view.ts";
import type { Recollection } from "./recollection.ts";
import type { Regency } from "./regency.ts";
import type { Start } from "./restart.ts";
import type { RunningInstance } from "./running-instance.ts";

export class Abstention {
  readonly #view: View;
  readonly #regency: Regency;
  readonly #recollection: () => Recollection;
  readonly #until: number;
  readonly #startRegency: number;
  /** Started after anything but a clean stop: what was sent up to `#until` is not known. */
  readonly #forgetful: boolean;

  constructor(view: View, regency: Regency, start: Start, recollection: () => Recollection) {
    this.#view = view;
    this.#regency = regency;
    this.#recollection = recollection;
    this.#until = start.abstainUntil;
    this.#startRegency = start.regency;
    // A view that begins in this process: nothing was sent in it.
    this.#forgetful = !start.eraseCleanStop && start.abstainUntil > start.lastDecided.instance;
  }

  /** Is this regency one in which we may have sent a PROPOSE or SYNC and forgotten it? */
  get forgetful(): boolean {
    return this.#forgetful && this.#regency.number === this.#startRegency;
  }

  /**
   * May we have sent a PROPOSE or SYNC in this instance and forgotten it? Whoever then is to act keeps everybody waiting. With a lost
   * journal only where the others are, too: who still fetches what they decided keeps nobody waiting.
   */
  obstructs(running: RunningInstance): boolean {
    if (this.forgetful && running.instance <= this.#until) return true;
    const recollection = this.#recollection();
    const until = recollection.forgotten?.until ?? Number.POSITIVE_INFINITY;
    return recollection.heard && running.instance >= until - 1 && this.silent(running);
  }

  /** The last instance we will not vote in, or 0 when that is behind us. */
  announced(executedUpTo: number): number {
    const over = executedUpTo >= this.#until || this.#regency.number !== this.#startRegency;
    return Math.max(over || this.#view.mode === "cft" ? 0 : this.#until, this.#recollection().abstainingUntil);
  }

  /** Must nothing leave in this ballot that is not journaled first, because something else may have left before a restart? */
  covers(running: RunningInstance): boolean {
    if (this.silent(running)) return true;
    return running.ballot.regency === this.#startRegency && running.instance <= this.#until;
  }

  /** Not even what is journaled first: what we have accepted in this ballot may be lost. */
  silent(running: RunningInstance): boolean {
    return this.#recollection().silent(running.instance, running.ballot.regency);
  }

  /** A clean stop now would not know all that left: votes from before the start may stand. */
  hides(running: RunningInstance): boolean {
    return this.#forgetful && this.covers(running);
  }
}
