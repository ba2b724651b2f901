/**
 * Compares the state of this replica with the others' (docs/protocol.md section 6): the last roots each member signed, against
 * its own at the same instances. A mismatch raises an alarm, for one of the two is wrong. A replica takes itself for wrong,
 * and asks to be repaired, only when a quorum of others agree on one root against its own: no f liars bring that about.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { rootStatement } from "../../protocol/image.ts";
import { ROOTS_KEPT } from "../../protocol/limits.ts";
import type { SignedRoot } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import type { Alarm } from "../driver-contract.ts";
import type { Verifier } from "../verifier.ts";

/** Roots of one member whose signatures are being checked. */
const CHECKING_MAX = 2 * ROOTS_KEPT;

export interface RootsPort {
  wallMs(): number;
  misbehaved(replica: ReplicaId, code: string): void;
  /** A member's root at this instance is not ours: called once for each. */
  mismatch?(replica: ReplicaId, instance: number): void;
  /** Called at most once: a quorum of others has another state than this replica. */
  repair(evidence: { instance: number; replicas: readonly ReplicaId[] }): void;
}

/** Roots by instance, the highest ones. */
type Kept = Map<number, Digest>;

export class Roots {
  readonly #view: View;
  readonly #self: ReplicaId;
  readonly #verifier: Verifier;
  readonly #port: RootsPort;
  readonly #ours: Kept = new Map();
  readonly #theirs = new Map<ReplicaId, Kept>();
  readonly #checking = new Map<ReplicaId, Set<string>>();
  /** When a mismatch at an instance was noticed, and with whom. */
  readonly #mismatched = new Map<number, { readonly sinceMs: number; readonly replicas: Set<ReplicaId> }>();
  #repairing = false;
  /** Ever noticed: one for each member and instance. */
  mismatches = 0;

  constructor(parts: { view: View; self: ReplicaId; verifier: Verifier; port: RootsPort }) {
    this.#view = parts.view;
    this.#self = parts.self;
    this.#verifier = parts.verifier;
    this.#port = parts.port;
  }

  /** A root of this replica's own: new ones, and at a start those of before. */
  ours({ instance, root }: { readonly instance: number; readonly root: Digest }): void {
    if (keep(this.#ours, instance, root)) this.#compare(instance);
  }

  /** A root that a member announced or offered as its own, made in `view`. */
  received(from: ReplicaId, view: number, { instance, root, signature }: SignedRoot): void {
    const member = memberOf(this.#view, from);
    if (!member || from === this.#self || view !== this.#view.id) return;
    const kept = this.#theirs.get(from) ?? new Map<number, Digest>();
    this.#theirs.set(from, kept);
    if (!hasRoom(kept, instance)) return;
    const checking = this.#checking.get(from) ?? new Set<string>();
    this.#checking.set(from, checking);
    const name = `${instance}/${root}`;
    if (checking.has(name) || checking.size >= CHECKING_MAX) return;
    checking.add(name);
    const statement = rootStatement(this.#view.cluster, { view, instance, root });
    this.#verifier([{ publicKey: member.signKey, statement, signature }], ([valid]) => {
      checking.delete(name);
      if (!valid) this.#port.misbehaved(from, "ROOT_SIGNATURE");
      else if (keep(kept, instance, root)) this.#compare(instance);
    });
  }

  /** The verified root of a member at an instance, as far as it is kept. */
  rootOf(replica: ReplicaId, instance: number): Digest | null {
    return this.#theirs.get(replica)?.get(instance) ?? null;
  }

  /** One for each instance at which kept roots differ from ours. */
  alarms(): Alarm[] {
    const alarms: Alarm[] = [];
    for (const [instance, { sinceMs }] of this.#mismatched) {
      const replicas = this.#against(instance).map(([replica]) => replica);
      if (replicas.length === 0) continue;
      const who = `replica${replicas.length > 1 ? "s" : ""} ${replicas.join(", ")}`;
      const verb = replicas.length > 1 ? "have" : "has";
      const detail = `${who} ${verb} another state than this one after instance ${instance}`;
      alarms.push({ code: "ROOT_MISMATCH", detail, sinceMs });
    }
    return alarms;
  }

  /** Who has another root than we at this instance, by id. */
  #against(instance: number): [ReplicaId, Digest][] {
    const ours = this.#ours.get(instance);
    if (ours === undefined) return [];
    const against: [ReplicaId, Digest][] = [];
    for (const { id } of this.#view.members) {
      const theirs = this.rootOf(id, instance);
      if (theirs !== null && theirs !== ours) against.push([id, theirs]);
    }
    return against;
  }

  #compare(instance: number): void {
    const against = this.#against(instance);
    if (against.length === 0) return;
    for (const known of this.#mismatched.keys()) {
      if (this.#against(known).length === 0) this.#mismatched.delete(known);
    }
    const noticed = this.#mismatched.get(instance) ?? { sinceMs: this.#port.wallMs(), replicas: new Set() };
    this.#mismatched.set(instance, noticed);
    for (const [replica] of against) {
      if (noticed.replicas.has(replica)) continue;
      noticed.replicas.add(replica);
      this.mismatches += 1;
      this.#port.mismatch?.(replica, instance);
    }
    this.#judgeOurselves(instance, against);
  }

  #judgeOurselves(instance: number, against: readonly (readonly [ReplicaId, Digest])[]): void {
    if (this.#repairing) return;
    const supporters = new Map<Digest, ReplicaId[]>();
    for (const [replica, root] of against) supporters.set(root, [...(supporters.get(root) ?? []), replica]);
    for (const replicas of supporters.values()) {
      if (replicas.length < this.#view.quorum) continue;
      this.#repairing = true;
      this.#port.repair({ instance, replicas });
      return;
    }
  }
}

/** Not known yet, and not below everything kept. */
function hasRoom(kept: Kept, instance: number): boolean {
  if (kept.has(instance)) return false;
  return kept.size < ROOTS_KEPT || instance > Math.min(...kept.keys());
}

/** The first root of an instance counts. False when it is not kept. */
function keep(kept: Kept, instance: number, root: Digest): boolean {
  if (!hasRoom(kept, instance)) return false;
  kept.set(instance, root);
  if (kept.size > ROOTS_KEPT) kept.delete(Math.min(...kept.keys()));
  return true;
}
