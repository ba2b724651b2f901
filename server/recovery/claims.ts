/** How far every member says it is (docs/protocol.md section 4.7): its STATUS, unverified, and what its messages imply. */
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";

export type Status = MessageOf<"STATUS">;

/** A STATUS is heard of every correct member several times in so long. */
const FRESH_US = 5_000_000;
/** Nobody correct abstains further above what is decided than a few instances. */
const ABSTENTION_AHEAD_MAX = 64;

export class Claims {
  readonly statuses = new Map<ReplicaId, Status>();
  readonly #heardUs = new Map<ReplicaId, number>();
  readonly #view: View;
  /** What members are known to have decided although their STATUS does not say so yet. */
  readonly #known = new Map<ReplicaId, number>();
  /** All heights, the highest first; null once one has changed. Asked for with every request of a client. */
  #heights: readonly number[] | null = null;

  constructor(view: View) {
    this.#view = view;
  }

  onStatus(from: ReplicaId, status: Status, nowUs: number): void {
    this.statuses.set(from, status);
    this.#heardUs.set(from, nowUs);
    this.#heights = null;
  }

  raise(replica: ReplicaId, decided: number): void {
    this.#known.set(replica, Math.max(this.of(replica), decided));
    this.#heights = null;
  }

  of(replica: ReplicaId): number {
    return Math.max(this.statuses.get(replica)?.decided ?? 0, this.#known.get(replica) ?? 0);
  }

  get highest(): number {
    return this.#sorted()[0] ?? 0;
  }

  /** The height that W members reach, one of them correct. */
  get credible(): number {
    return this.#sorted()[this.#view.weakQuorum - 1] ?? 0;
  }

  /** The highest instance that any member that is here says it will not vote in; what no correct one would say is left out. */
  abstainingUntil(nowUs: number): number {
    const most = this.credible + ABSTENTION_AHEAD_MAX;
    let until = 0;
    for (const [replica, { abstainingUntil }] of this.statuses) {
      if (nowUs - (this.#heardUs.get(replica) ?? 0) > FRESH_US || abstainingUntil > most) continue;
      until = Math.max(until, abstainingUntil);
    }
    return until;
  }

  #sorted(): readonly number[] {
    this.#heights ??= this.#view.members.map(({ id }) => this.of(id)).sort((a, b) => b - a);
    return this.#heights;
  }
}
