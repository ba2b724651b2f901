/**
 * Who of the others reproduces the roots of the state under construction (docs/protocol.md section 6). f of them beside the
 * donor, one of these f+1 correct, prove the state; W against it prove that the donor lied; one alone proves nothing. In cft
 * mode the donor's own word is enough.
 *
 * Invariants: 1. each member counts once, and never for both sides. 2. a root is computed only where a member that was
 * not judged yet has one, and judges it whatever it says meanwhile, so that liars cannot have more computed than there are
 * members.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import type { Roots } from "./offers.ts";

export interface WitnessesOptions {
  readonly view: View;
  readonly self: ReplicaId;
  readonly donor: ReplicaId;
  readonly rootsOf: (member: ReplicaId) => Roots;
  readonly contradictsItself: (member: ReplicaId) => void;
}

export class Witnesses {
  readonly #options: WitnessesOptions;
  readonly #members: readonly ReplicaId[];
  /** What the state under construction had, by instance. */
  readonly #computed = new Map<number, Digest>();
  /** What members had where a root was computed, from the moment that began. */
  readonly #compared: { readonly id: ReplicaId; readonly instance: number; readonly root: Digest }[] = [];
  readonly #matched = new Set<ReplicaId>();
  readonly #contradicting = new Set<ReplicaId>();
  /** Matched at one instance and contradicted at another: counted for neither side. */
  readonly #both = new Set<ReplicaId>();

  constructor(options: WitnessesOptions) {
    this.#options = options;
    const { view, self, donor } = options;
    this.#members = view.members.map((member) => member.id).filter((id) => id !== self && id !== donor);
  }

  get believed(): boolean {
    return this.#matched.size >= this.#options.view.rootWitnesses;
  }

  get refuted(): boolean {
    return this.#contradicting.size >= this.#options.view.weakQuorum;
  }

  get contradicting(): readonly ReplicaId[] {
    return this.#members.filter((id) => this.#contradicting.has(id));
  }

  /** The root there is being computed: who has one now is judged by it, even if it is pushed out by others meanwhile. */
  computing(instance: number): void {
    for (const id of this.#unjudged()) {
      const root = this.#options.rootsOf(id).get(instance);
      if (root !== undefined) this.#compared.push({ id, instance, root });
    }
  }

  add(instance: number, root: Digest): void {
    this.#computed.set(instance, root);
    this.judge();
  }

  /** Compares what is comparable by now. */
  judge(): void {
    for (const id of this.#members) {
      for (const [instance, root] of this.#options.rootsOf(id)) {
        const mine = this.#computed.get(instance);
        if (mine !== undefined) this.#judge(id, mine === root);
      }
    }
    for (const { id, instance, root } of this.#compared) {
      const mine = this.#computed.get(instance);
      if (mine !== undefined) this.#judge(id, mine === root);
    }
  }

  /** Where the next root is to be computed, from `executed` on and no further than `reachable`; null: nowhere. */
  next(executed: number, reachable: number): number | null {
    let next: number | null = null;
    for (const id of this.#unjudged()) {
      const first = this.#firstRoot(id, executed, reachable);
      if (first !== null && (next === null || first < next)) next = first;
    }
    return next;
  }

  /** Members not judged yet that have a root at exactly this instance. */
  at(instance: number): readonly ReplicaId[] {
    return this.#unjudged().filter((id) => this.#options.rootsOf(id).has(instance));
  }

  /** A batch of this member, tried on the state, gave `root`: whoever has that root vouches for the state. True when one does. */
  tried(member: ReplicaId, instance: number, root: Digest): boolean {
    const matching = this.at(instance).filter((id) => this.#options.rootsOf(id).get(instance) === root);
    for (const id of matching) this.#matched.add(id);
    if (!matching.includes(member)) this.contradicted(member);
    return matching.length > 0;
  }

  /** Its batch does not go with the state: one of both is false. */
  contradicted(member: ReplicaId): void {
    if (this.#unjudged().includes(member)) this.#contradicting.add(member);
  }

  /** Could f members still match with the roots that are known? */
  enough(executed: number, reachable: number): boolean {
    const open = this.#unjudged().filter((id) => this.#firstRoot(id, executed, reachable) !== null);
    return this.#matched.size + open.length >= this.#options.view.rootWitnesses;
  }

  #unjudged(): ReplicaId[] {
    return this.#members.filter((id) => !this.#matched.has(id) && !this.#contradicting.has(id) && !this.#both.has(id));
  }

  #firstRoot(id: ReplicaId, executed: number, reachable: number): number | null {
    let first: number | null = null;
    for (const instance of this.#options.rootsOf(id).keys()) {
      if (instance >= executed && instance <= reachable && (first === null || instance < first)) first = instance;
    }
    return first;
  }

  #judge(id: ReplicaId, matches: boolean): void {
    if (this.#both.has(id)) return;
    const before = matches ? this.#contradicting : this.#matched;
    if (!before.has(id)) {
      (matches ? this.#matched : this.#contradicting).add(id);
      return;
    }
    before.delete(id);
    this.#both.add(id);
    // A false state may become right when all that was false in it is overwritten; a right one never becomes false.
    if (!matches) this.#options.contradictsItself(id);
  }
}
