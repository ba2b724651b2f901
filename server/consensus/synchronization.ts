/**
 * Changing the leader (docs/protocol.md section 5): STOP, the regency on disk, signed STOPDATA, and the SYNC with which the new
 * synchronizer shows what has to go on. Every replica verifies all of a SYNC and recomputes the selection.
 *
 * Invariants
 *  0. A STOP leaves once the regency it asks for is on disk: so Q members remember, whatever becomes of them, that a regency
 *     may be installed, and a replica that lost its journal learns of it (recollection.ts).
 *  1. A regency is installed on Q STOPs, on W signed STATUS that report it, or on n-f valid STOPDATAs for it.
 *  2. It is on disk before its STOPDATA, its SYNC, and any vote in it.
 *  3. Of a regency one SYNC is acted on, and only when n-f STOPDATAs in it are valid and its batch is the selected one.
 *  4. After a restart that was no clean stop no SYNC leaves for the regency of before; after a clean stop none before its
 *     record is erased.
 */
import { type Digest, EMPTY } from "../../protocol/bytes.ts";
import { assert, isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import { STOP_CLIENTS_MAX } from "../../protocol/limits.ts";
import {
  type Certificate,
  type Message,
  type MessageOf,
  type StopData,
  statusStatement,
  stopDataStatement,
} from "../../protocol/messages.ts";
import { memberOf, type ReplicaId } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import type { Ordering } from "./ordering.ts";
import type { Regency } from "./regency.ts";
import type { Start } from "./restart.ts";
import { checkable, keepersOf, selected, synchronizerOf } from "./selection.ts";
import { Stops } from "./stops.ts";

/** A member whose SYNC was invalid is not listened to about regencies ahead of ours for this long. */
const INVALID_SYNC_PAUSE_US = 1_000_000;
/** A SYNC goes to one member, and is taken from one that is ahead of our regency, no more often than this. */
const SYNC_INTERVAL_US = 200_000;

/** A SYNC whose STOPDATAs are verified: what it selects, and the batch that came with it. */
interface VerifiedSync {
  readonly regency: number;
  readonly selection: Certificate | null;
  readonly batch: Uint8Array;
  readonly envelopes: readonly Uint8Array[];
}

/** What the synchronizer of the installed regency has gathered. */
interface Gathering {
  readonly stopData: Map<ReplicaId, StopData>;
  /** Members whose STOPDATA is being verified: no other one of theirs is looked at meanwhile. */
  readonly verifying: Set<ReplicaId>;
  /** Members whose record's batch nobody serves: left out while enough others remain. */
  readonly excluded: Set<ReplicaId>;
  selectedAtUs: number | null;
}

export interface SynchronizationPort {
  /** A certificate for this instance, whose batch has this digest, is verified: it proves the history below it. */
  anchor(anchor: { readonly instance: number; readonly digest: Digest; readonly batchDigest: Digest }): void;
  /** These members can serve everything below `instance`. */
  historyAt(instance: number, sources: readonly ReplicaId[]): void;
  /** May this replica say what it has accepted, and send a SYNC? */
  testifies(): boolean;
  /** Another regency is installed; in the one before it was this member's turn to act. */
  installed(failed: ReplicaId): void;
  /** A client that W members name must sign from now on. */
  mustSign(client: Digest): void;
}

export class Synchronization {
  readonly #context: CoreContext;
  readonly #regency: Regency;
  readonly #ordering: Ordering;
  readonly #port: SynchronizationPort;
  readonly #stops = new Stops();
  #wanted = 0;
  /** The highest regency that is on disk as asked for. */
  #askedFor: number;
  #stopSentUs = 0;
  #gathering: Gathering | null = null;
  /** STOPDATAs for regencies not installed here yet, the newest of each member. */
  readonly #early = new Map<ReplicaId, MessageOf<"STOPDATA">>();
  /** The SYNC we sent as synchronizer of the installed regency. */
  #ownSync: MessageOf<"SYNC"> | null = null;
  #stopDataSentUs = 0;
  /** Verified, and waiting for its regency to be on disk or for the history below it. */
  #verified: VerifiedSync | null = null;
  readonly #verifying = new Map<ReplicaId, number>();
  readonly #syncSentUs = new Map<ReplicaId, number>();
  readonly #pausedUntilUs = new Map<ReplicaId, number>();
  #checkingStatuses = false;
  #stopped = false;

  constructor(
    context: CoreContext,
    regency: Regency,
    ordering: Ordering,
    start: Pick<Start, "wanted">,
    port: SynchronizationPort,
  ) {
    this.#askedFor = start.wanted;
    this.#context = context;
    this.#regency = regency;
    this.#ordering = ordering;
    this.#port = port;
  }

  /** The regency this replica asks for, or the installed one. */
  get wanted(): number {
    return Math.max(this.#wanted, this.#regency.number);
  }

  /** The highest regency that this replica ever asked for, so that others may have installed it. */
  get askedFor(): number {
    return Math.max(this.#askedFor, this.wanted);
  }

  /** The SYNC of the installed regency is here and verified: what is missing now is not its leader's to give. */
  get delivered(): boolean {
    return this.#regency.synced !== null || this.#verified?.regency === this.#regency.number;
  }

  get #synchronizer(): ReplicaId {
    return synchronizerOf(this.#context.view, this.#regency.number);
  }

  /** A SYNC sent before a clean stop stands, and is sent again; a phase that was under way goes on. */
  resume(messages: readonly Message[]): void {
    for (const message of messages) {
      if (message.type !== "SYNC" || message.regency !== this.#regency.number) continue;
      this.#ownSync = message;
      this.#context.broadcast(message);
      this.#verify(this.#context.self, message);
    }
    if (this.#regency.number > 0 && this.#regency.synced === null && !this.#ordering.forgetful) this.#onDisk();
  }

  /** What a clean stop must remember: our SYNC, unless an accept record of this regency follows it. */
  stop(): readonly Message[] {
    this.#stopped = true;
    const accepted = this.#ordering.newestAccepted?.regency === this.#regency.number;
    return this.#ownSync && !accepted ? [this.#ownSync] : [];
  }

  // ---- STOP

  /** Asks for the next regency, once; the STOP is repeated until it is installed. */
  leaveRegency(): void {
    this.#want(this.#regency.number + 1);
  }

  /** Somebody correct asks for this regency, and so must we. */
  want(regency: number): void {
    this.#want(regency);
  }

  /** We may say now what we have accepted. */
  allowed(): void {
    if (this.#stopped || !this.#regency.journaled) return;
    if (this.#regency.synced === null && this.#regency.number > 0 && this.#synchronizer !== this.#context.self) {
      this.#sendStopData();
    }
    this.progress();
  }

  #want(regency: number): void {
    if (this.#stopped || regency <= this.wanted) return;
    this.#wanted = regency;
    const { view, self } = this.#context;
    const named = this.#ordering.unprovenClients.slice(0, STOP_CLIENTS_MAX);
    this.#stops.add(self, { regency, named });
    if (regency <= this.#askedFor) this.#sendStop();
    else {
      this.#context.journal([{ type: "wanted", view: view.id, regency }], () => {
        this.#askedFor = Math.max(this.#askedFor, regency);
        // Installed here meanwhile, it may be this one that others lack.
        if (!this.#stopped && this.#wanted === regency && regency >= this.#regency.number) this.#sendStop();
      });
    }
    this.#countStops();
  }

  #sendStop(to?: ReplicaId): void {
    const { view, self, nowUs } = this.#context;
    if (this.#wanted > this.#askedFor) return;
    const named = this.#stops.namedOf(self);
    const message: Message = { type: "STOP", view: view.id, regency: this.#wanted, named: [...named] };
    if (to === undefined) {
      this.#stopSentUs = nowUs;
      this.#context.broadcast(message);
    } else this.#context.send(to, message);
  }

  onStop(from: ReplicaId, message: MessageOf<"STOP">): void {
    if (message.regency <= this.#regency.number) return;
    const news = this.#stops.add(from, { regency: message.regency, named: message.named });
    // A leader that gives up its own regency need not be voted out; nor one that did so before its turn came, and lets that pass.
    const idle = this.#ordering.proposedSinceUs === null;
    if ((news || idle) && this.#ordering.acts(from)) this.leaveRegency();
    // Said before a restart, and somebody needs it still.
    this.#want(Math.min(message.regency, this.#askedFor));
    if (news) this.#countStops();
  }

  #countStops(): void {
    const { view } = this.#context;
    for (const client of this.#stops.namedBy(view.weakQuorum)) this.#port.mustSign(client);
    this.#want(this.#stops.reached(view.weakQuorum));
    const installable = this.#stops.reached(view.quorum);
    if (installable > this.#regency.number) this.#install(installable);
  }

  // ---- installing a regency

  #install(number: number): void {
    if (this.#stopped || number <= this.#regency.number) return;
    const failed = this.#ordering.acting;
    this.#regency.install(number);
    this.#wanted = Math.max(this.#wanted, number);
    this.#ownSync = null;
    if (this.#verified && this.#verified.regency < number) this.#verified = null;
    this.#gathering = null;
    this.#ordering.regencyInstalled();
    this.#port.installed(failed);
    const { view } = this.#context;
    this.#context.journal([{ type: "regency", view: view.id, regency: number }], () => {
      this.#regency.onDisk(number);
      if (this.#regency.number === number) this.#onDisk();
    });
  }

  #onDisk(): void {
    if (this.#stopped) return;
    this.#ordering.regencyOpened();
    if (this.#synchronizer === this.#context.self) {
      this.#gathering = { stopData: new Map(), verifying: new Set(), excluded: new Set(), selectedAtUs: null };
      const own = this.#stopData();
      if (own) this.#gathering.stopData.set(own.replica, own);
    } else this.#sendStopData();
    for (const [from, message] of [...this.#early]) {
      if (message.regency > this.#regency.number) continue;
      this.#early.delete(from);
      this.onStopData(from, message);
    }
    this.progress();
  }

  /** None when an accept record of this very regency shows that its SYNC is long through, or when we may have forgotten one. */
  #stopData(): StopData | null {
    const { view, self, cluster, signer } = this.#context;
    if (!this.#port.testifies()) return null;
    const regency = this.#regency.number;
    const record = this.#ordering.newestAccepted;
    if (record && record.regency >= regency) return null;
    const statement = stopDataStatement(cluster, { view: view.id, regency, replica: self }, record);
    return { replica: self, record, signature: signer(statement) };
  }

  #sendStopData(): void {
    const { view, nowUs } = this.#context;
    const own = this.#stopData();
    if (!own) return;
    this.#stopDataSentUs = nowUs;
    const { record, signature } = own;
    const regency = this.#regency.number;
    this.#context.send(this.#synchronizer, { type: "STOPDATA", view: view.id, regency, record, signature });
  }

  /** W signed STATUS of a higher regency: one of them comes from a correct replica, which installed it. */
  onStatuses(statuses: ReadonlyMap<ReplicaId, MessageOf<"STATUS">>): void {
    const { view, cluster } = this.#context;
    if (this.#checkingStatuses) return;
    const ahead = [...statuses].filter(([, status]) => status.regency > this.#regency.number);
    if (ahead.length < view.weakQuorum) return;
    ahead.sort(([a, x], [b, y]) => y.regency - x.regency || a - b);
    const checks = ahead.map(([replica, status]) => ({
      publicKey: memberOf(view, replica)?.signKey ?? EMPTY,
      statement: statusStatement(cluster, status),
      signature: status.signature,
    }));
    this.#checkingStatuses = true;
    this.#context.verify(checks, (valid) => {
      this.#checkingStatuses = false;
      const signed = ahead.filter((_, index) => valid[index]);
      const reported = signed[view.weakQuorum - 1]?.[1].regency ?? 0;
      if (reported > this.#regency.number) this.#install(reported);
    });
  }

  // ---- STOPDATA, at the synchronizer

  onStopData(from: ReplicaId, message: MessageOf<"STOPDATA">): Rejection | null {
    const { view, self } = this.#context;
    const { regency, record, signature } = message;
    if (synchronizerOf(view, regency) !== self || regency < this.#regency.number) return null;
    if (regency > this.#regency.number || !this.#regency.journaled) {
      if ((this.#early.get(from)?.regency ?? 0) <= regency) this.#early.set(from, message);
      return null;
    }
    if (this.#ownSync) {
      this.#repeatSync(from, this.#ownSync);
      return null;
    }
    const gathering = this.#gathering;
    if (!gathering || gathering.stopData.has(from) || gathering.verifying.has(from)) return null;
    const data: StopData = { replica: from, record, signature };
    const [found] = checkable(view, regency, [data]);
    if (!found) return reject("ignore", "STOPDATA_INVALID");
    gathering.verifying.add(from);
    this.#context.verify(found.checks, (valid) => {
      gathering.verifying.delete(from);
      if (valid.includes(false)) this.#context.emit({ type: "misbehaved", replica: from, code: "STOPDATA_SIGNATURE" });
      else if (gathering === this.#gathering) {
        gathering.stopData.set(from, data);
        this.progress();
      }
    });
    return null;
  }

  /** For somebody who installed this regency late; a SYNC is large, so not at any pace. */
  #repeatSync(to: ReplicaId, sync: MessageOf<"SYNC">): void {
    const { nowUs } = this.#context;
    if (nowUs - (this.#syncSentUs.get(to) ?? Number.NEGATIVE_INFINITY) < SYNC_INTERVAL_US) return;
    this.#syncSentUs.set(to, nowUs);
    this.#context.send(to, sync);
  }

  /** Sends the SYNC once n-f STOPDATAs are here and the selected batch with them. */
  #trySync(): void {
    const { view, self, nowUs } = this.#context;
    const gathering = this.#gathering;
    const { forgetful, started } = this.#ordering;
    if (!gathering || this.#ownSync || this.#verified || forgetful || !started || !this.#port.testifies()) return;
    this.#bringOwn(gathering);
    const usable = [...gathering.stopData.values()].filter((data) => !gathering.excluded.has(data.replica));
    if (usable.length < view.reachable) return;
    const chosen = usable.slice(0, view.reachable);
    const selection = selected(chosen);
    gathering.selectedAtUs ??= nowUs;
    const offered = selection ? this.#selectedBatch(selection, chosen) : this.#freeBatch();
    if (!offered) return;
    const regency = this.#regency.number;
    const { batch, envelopes } = offered;
    this.#ownSync = { type: "SYNC", view: view.id, regency, stopData: chosen, batch, envelopes };
    this.#gathering = null;
    this.#context.broadcast(this.#ownSync);
    assert(synchronizerOf(view, regency) === self, "only the synchronizer sends SYNC");
    this.#verified = { regency, selection, batch, envelopes };
  }

  /** Our own STOPDATA, when it could not be given at first. */
  #bringOwn(gathering: Gathering): void {
    const own = gathering.stopData.has(this.#context.self) ? null : this.#stopData();
    if (own) gathering.stopData.set(own.replica, own);
  }

  #freeBatch(): { batch: Uint8Array; envelopes: Uint8Array[] } | null {
    return this.#ordering.chain.lastDecided.instance < this.#context.firstInstance ? this.#ordering.freeBatch() : null;
  }

  /** The batch of the selected record, fetched (with the history below it) from those who reported it. */
  #selectedBatch(
    selection: Certificate,
    chosen: readonly StopData[],
  ): { batch: Uint8Array; envelopes: Uint8Array[] } | null {
    const { instance, digest } = selection;
    const candidate = this.#ordering.chain.candidate(instance, digest);
    if (candidate) return { batch: candidate.bytes, envelopes: [] };
    const holders = chosen.filter(({ record }) => record?.instance === instance && record.digest === digest);
    const sources = holders.map((data) => data.replica);
    if (this.#ordering.chain.lastDecided.instance < instance - 1) this.#port.historyAt(instance, sources);
    else
      this.#ordering.chain.fetchBatch(instance, digest, [
        ...new Set([...sources, ...keepersOf(this.#context.view, selection)]),
      ]);
    return null;
  }

  /** Nobody serves the selected batch: go on without those who reported it, if n-f others are there. */
  #giveUpSelection(patienceUs: number): void {
    const { view, nowUs } = this.#context;
    const gathering = this.#gathering;
    if (!gathering || gathering.selectedAtUs === null || nowUs - gathering.selectedAtUs < patienceUs) return;
    const usable = [...gathering.stopData.values()].filter((data) => !gathering.excluded.has(data.replica));
    const selection = selected(usable.slice(0, view.reachable));
    if (!selection) return;
    const reporting = usable.filter(
      ({ record }) => record?.instance === selection.instance && record.digest === selection.digest,
    );
    if (usable.length - reporting.length < view.reachable) return;
    for (const data of reporting) gathering.excluded.add(data.replica);
    gathering.selectedAtUs = null;
  }

  // ---- SYNC, everywhere

  onSync(from: ReplicaId, message: MessageOf<"SYNC">): Rejection | null {
    const { view, nowUs } = this.#context;
    const { regency } = message;
    if (from !== synchronizerOf(view, regency)) return reject("ignore", "SYNC_NOT_SYNCHRONIZER");
    const known = this.#regency.synced !== null || this.#verified !== null;
    if (regency < this.#regency.number || (regency === this.#regency.number && known)) return null;
    if (regency > this.#regency.number) {
      if ((this.#pausedUntilUs.get(from) ?? 0) > nowUs) return null;
      this.#pausedUntilUs.set(from, nowUs + SYNC_INTERVAL_US);
    }
    if ((this.#verifying.get(from) ?? -1) >= regency) return null;
    return this.#verify(from, message);
  }

  #verify(from: ReplicaId, message: MessageOf<"SYNC">): Rejection | null {
    const { view } = this.#context;
    const { regency } = message;
    const found = checkable(view, regency, message.stopData);
    if (found.length < view.reachable) return this.#invalidSync(from, regency);
    this.#verifying.set(from, regency);
    this.#context.verify(
      found.flatMap(({ checks }) => checks),
      (verdicts) => {
        this.#verifying.delete(from);
        let at = 0;
        const valid = found.filter(({ checks }) => {
          const own = verdicts.slice(at, at + checks.length);
          at += checks.length;
          return !own.includes(false);
        });
        if (valid.length < view.reachable) {
          const rejection = this.#invalidSync(from, regency);
          this.#context.emit({ type: "misbehaved", replica: from, code: rejection.code });
          return;
        }
        const selection = selected(valid.map(({ data }) => data));
        this.#accept({ regency, selection, batch: message.batch, envelopes: message.envelopes });
      },
    );
    return null;
  }

  #invalidSync(from: ReplicaId, regency: number): Rejection {
    this.#pausedUntilUs.set(from, this.#context.nowUs + INVALID_SYNC_PAUSE_US);
    if (regency === this.#regency.number) this.leaveRegency();
    return reject("ignore", "SYNC_INVALID");
  }

  #accept(sync: VerifiedSync): void {
    const { number, synced } = this.#regency;
    if (sync.regency < number || (sync.regency === number && (synced !== null || this.#verified))) return;
    if (sync.regency > number) this.#install(sync.regency);
    this.#verified = sync;
    const { selection } = sync;
    if (selection) {
      const { instance, digest } = selection;
      const batchDigest = this.#context.crypto.sha256(sync.batch);
      this.#port.anchor({ instance, digest, batchDigest });
      this.#port.historyAt(instance, [synchronizerOf(this.#context.view, sync.regency)]);
    }
    this.progress();
  }

  /** Whatever has become possible; called when a regency is on disk, and when decisions were made. */
  progress(): void {
    if (this.#stopped || !this.#regency.journaled) return;
    this.#trySync();
    const sync = this.#verified;
    if (!sync || sync.regency !== this.#regency.number) return;
    const { instance: decided, digest } = this.#ordering.chain.lastDecided;
    const instance = sync.selection?.instance ?? this.#context.firstInstance;
    if (decided < instance - 1) return;
    this.#verified = null;
    const invalid = this.#vote(sync, { instance, decided, digest });
    if (invalid) {
      this.#context.emit({ type: "misbehaved", replica: this.#synchronizer, code: invalid.code });
      this.leaveRegency();
      return;
    }
    this.#regency.proven(instance);
    this.#ordering.regencyOpened();
  }

  /** SYNC is the PROPOSE of its instance. Who has decided it votes again for the same batch. */
  #vote(
    { selection, batch, envelopes }: VerifiedSync,
    at: { readonly instance: number; readonly decided: number; readonly digest: Digest },
  ): Rejection | null {
    if (at.decided > at.instance) return null;
    if (!selection) {
      // Who restarted in this regency may see its SYNC again after the decision.
      return at.decided < this.#context.firstInstance ? this.#ordering.voteOnFree(batch, envelopes) : null;
    }
    if (at.decided === at.instance) {
      // A synchronizer may send two valid SYNCs, and the instance be decided after the first: no reason to halt.
      if (selection.digest !== at.digest) return reject("ignore", "SYNC_CONTRADICTS");
      const candidate = this.#ordering.chain.candidate(at.instance, at.digest);
      if (candidate) this.#ordering.voteOnSelected(at.instance, candidate);
      return null;
    }
    const candidate = this.#ordering.chain.candidateOf(batch);
    if (isRejection(candidate)) return candidate;
    if (candidate.digest !== selection.digest) return reject("ignore", "SYNC_BATCH");
    this.#ordering.voteOnSelected(at.instance, candidate);
    return null;
  }

  // ---- time

  /** Repeats what may have been lost, and gives up what leads nowhere. */
  tick(timeoutUs: number): void {
    const { nowUs } = this.#context;
    if (this.#stopped) return;
    if (this.#wanted > this.#regency.number && nowUs - this.#stopSentUs >= timeoutUs) this.#sendStop();
    if (!this.#regency.journaled || this.#regency.synced !== null) return;
    if (this.#synchronizer === this.#context.self) {
      this.#giveUpSelection(timeoutUs / 2);
      this.progress();
    } else if (nowUs - this.#stopDataSentUs >= timeoutUs) this.#sendStopData();
  }

  /** Everything of the synchronization phase, for a replica whose link was cut. */
  resend(to: ReplicaId): void {
    if (this.#stopped) return;
    if (this.#wanted > this.#regency.number) this.#sendStop(to);
    if (!this.#regency.journaled) return;
    if (this.#ownSync) this.#context.send(to, this.#ownSync);
    else if (this.#regency.synced === null && to === this.#synchronizer) this.#sendStopData();
  }
}
