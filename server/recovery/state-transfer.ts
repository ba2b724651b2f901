/**
 * Collaborative state transfer (docs/protocol.md section 6, "Large gap or empty disk"): a checkpoint from one donor, the
 * log above it from the others, side by side, and the roots of f others to compare with. Decides everything and touches
 * nothing: `step(input)` returns effects.
 *
 * Invariants: 1. `accepted` comes only once f members beside the donor have roots, at instances at or above its checkpoint,
 * that the staged state reproduces by executing proven log. 2. before that nothing is executed beyond the next root to
 * compare: whoever is asked for a root is passed by nobody. 3. a donor is dropped for good only by proof: its own bytes
 * contradict each other or the proven history, or W others contradict its state.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { SignatureCheck, ViewAt } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assertNever } from "../../protocol/errors.ts";
import { rootOf } from "../../protocol/image.ts";
import type { Message, MessageOf } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import { type Attempt, historyFault, timestampMsOf } from "./attempt.ts";
import { CheckpointFetch, type Verdict } from "./checkpoint-fetch.ts";
import type { DonorChoice } from "./donor-choice.ts";
import { DonorSearch } from "./donor-search.ts";
import { LogFetch } from "./log-fetch.ts";
import { Offers } from "./offers.ts";
import { Probe } from "./probe.ts";
import { ProvenLog } from "./proven-log.ts";
import type { TransferEffect, TransferInput, TransferPhase, TransferPort, TransferState } from "./transfer-contract.ts";
import { Witnesses } from "./witnesses.ts";

const OFFER_INTERVAL_US = 1_000_000;
/** Without log to execute, or without a root to compare, for so long, another donor is tried if there is one. */
const LOG_STALL_US = 10_000_000;
const ROOT_STALL_US = 60_000_000;
/** So long nothing can be proven before a batch is executed on trial. */
const PROBE_PATIENCE_US = 3_000_000;
const LOG_BUFFER_BYTES_MAX = 32 * 1024 * 1024;
const REPLAY_BYTES = 4 * 1024 * 1024;

export interface StateTransferOptions {
  readonly view: View;
  readonly viewAt: ViewAt;
  /** The first view of the cluster: what roots are bound to. */
  readonly genesis: View;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly logBufferBytesMax?: number;
}

export class StateTransfer {
  readonly #options: StateTransferOptions;
  readonly #offers: Offers;
  readonly #donors: DonorSearch;
  readonly #log: ProvenLog;
  readonly #logFetch: LogFetch;
  readonly #port: TransferPort;
  #effects: TransferEffect[] = [];
  readonly #verifications = new Map<number, (valid: readonly boolean[]) => void>();
  #lastTicket = 0;
  #nowUs = 0;
  #held = new Map<Digest, number>();
  #offersAskedUs = Number.NEGATIVE_INFINITY;
  #attempt: Attempt | null = null;
  #discarding = false;
  #finished = false;
  readonly #sources = new Set<ReplicaId>();

  constructor(options: StateTransferOptions) {
    this.#options = options;
    const { view, self, crypto } = options;
    this.#port = {
      nowUs: () => this.#nowUs,
      send: (to, message) => this.#effects.push({ type: "send", to, message }),
      verify: (checks, then) => this.#verify(checks, then),
      blame: (replica, code, final) => this.#effects.push({ type: "blame", replica, code, final }),
    };
    this.#offers = new Offers(view, options.viewAt, this.#port);
    this.#log = new ProvenLog(options.logBufferBytesMax ?? LOG_BUFFER_BYTES_MAX);
    this.#donors = new DonorSearch({
      view,
      genesis: options.genesis,
      self,
      crypto,
      offers: this.#offers,
      nowUs: () => this.#nowUs,
      servesLog: (member, from) => this.#logFetch.serves(member, from),
    });
    this.#logFetch = new LogFetch({
      view,
      viewAt: options.viewAt,
      self,
      crypto,
      port: this.#port,
      offers: this.#offers,
      log: this.#log,
      proven: (from) => {
        this.#sources.add(from);
        this.#progressed();
      },
    });
  }

  get state(): TransferState {
    const attempt = this.#attempt;
    const sources = this.#options.view.members.map(({ id }) => id).filter((id) => this.#sources.has(id));
    return {
      phase: this.#phase(attempt),
      donor: attempt?.donor ?? null,
      sources,
      instance: attempt?.executed.instance ?? 0,
      target: this.#offers.target,
      bytes: attempt?.fetch.bytes ?? 0,
      bytesTotal: attempt?.header.bytes ?? 0,
    };
  }

  #phase(attempt: Attempt | null): TransferPhase {
    if (!attempt) return "offers";
    if (this.#finished) return "install";
    if (attempt.stage !== "executing") return "checkpoint";
    return attempt.believed || attempt.busy || this.#log.through > this.#log.base ? "log" : "verify";
  }

  /** Effects to perform in order. Synchronous, never re-entrant. */
  step(input: TransferInput): readonly TransferEffect[] {
    this.#effects = [];
    if (!this.#finished) {
      this.#take(input);
      this.#advance();
    }
    return this.#effects;
  }

  #take(input: TransferInput): void {
    switch (input.type) {
      case "started":
        this.#nowUs = input.nowUs;
        this.#donors.start({ position: input.instance, optional: input.optional });
        this.#held = new Map(input.held);
        this.#offers.forgetRootsBelow(input.instance);
        return;
      case "tick":
        this.#nowUs = Math.max(this.#nowUs, input.nowUs);
        return;
      case "message":
        this.#onMessage(input.from, input.message);
        return;
      case "connected":
        this.#logFetch.connected(input.peer);
        if (this.#attempt?.donor === input.peer) this.#attempt.fetch.reconnected();
        this.#askOffer(input.peer);
        return;
      case "disconnected":
        this.#logFetch.disconnected(input.peer);
        return;
      case "verified": {
        const then = this.#verifications.get(input.ticket);
        this.#verifications.delete(input.ticket);
        then?.(input.valid);
        return;
      }
      case "discarded":
        this.#discarding = false;
        this.#held = new Map(input.held);
        return;
      default:
        this.#onReport(input);
    }
  }

  /** What the shell did with the staged state; of a donor dropped meanwhile only what is on disk counts. */
  #onReport(
    input: Extract<TransferInput, { type: "staged" | "completed" | "replayed" | "root" | "tried" | "unusable" }>,
  ): void {
    if (this.#discarding) return;
    const attempt = this.#attempt;
    if (!attempt) return;
    this.#progressed();
    switch (input.type) {
      case "staged":
        for (const digest of input.digests) if (attempt.fetch.wants(digest)) this.#held.set(digest, 0);
        attempt.fetch.onStaged(input.digests);
        return;
      case "completed":
        attempt.stage = "executing";
        return;
      case "replayed":
        attempt.busy = false;
        return;
      case "root":
        attempt.busy = false;
        attempt.witnesses.add(input.instance, input.root);
        return;
      case "tried":
        attempt.busy = false;
        this.#onTried(attempt, input.instance, input.root);
        return;
      case "unusable":
        this.#lied("CHECKPOINT_UNUSABLE");
        return;
      default:
        assertNever(input);
    }
  }

  #onMessage(from: ReplicaId, message: Message): void {
    const { view, self } = this.#options;
    if (from === self || !memberOf(view, from)) return;
    // What proves itself may come from a member that is in another view yet; what it signed for this one may not.
    if (message.view !== view.id && !["HISTORY", "MANIFEST", "CHUNK"].includes(message.type)) return;
    const attempt = this.#attempt;
    switch (message.type) {
      case "OFFER":
        this.#donors.offered(from);
        this.#offers.onOffer(from, message);
        return;
      case "ROOT":
        this.#offers.onRoot(from, message);
        return;
      case "STATUS":
        this.#offers.onStatus(from, message);
        return;
      case "HISTORY":
        if (!attempt || !this.#onBeyond(attempt, from, message)) this.#logFetch.onHistory(from, message);
        return;
      case "MANIFEST":
        if (attempt?.donor === from) this.#judge(attempt, attempt.fetch.onManifest(message));
        return;
      case "CHUNK":
        if (attempt?.donor === from) this.#judge(attempt, attempt.fetch.onChunk(message));
        return;
      default:
      // Of no use here: votes and requests are for a replica that has a state.
    }
  }

  #judge(attempt: Attempt, verdict: Verdict): void {
    if (verdict?.type === "lie") this.#lied(verdict.code);
    if (verdict?.type === "gone") {
      this.#donors.gone(attempt);
      this.#drop("CHECKPOINT_GONE");
    }
  }

  // ---- offers and donors

  #askOffer(to: ReplicaId): void {
    const { view, self } = this.#options;
    if (to === self) return;
    const message = { type: "FETCH_OFFER", view: view.id, regency: 0, rootsFrom: this.#rootsFrom() } as const;
    this.#port.send(to, message);
  }

  /** From where on roots are needed that nobody is known to have; 0: none are. */
  #rootsFrom(): number {
    const attempt = this.#attempt;
    if (!attempt) return this.#donors.rootsFrom;
    const { instance } = attempt.executed;
    if (attempt.believed || attempt.witnesses.enough(instance, this.#reachable(attempt))) return 0;
    return Math.max(1, instance);
  }

  #reachable(attempt: Attempt): number {
    return Math.max(this.#offers.target, attempt.executed.instance);
  }

  #begin({ donor, header }: DonorChoice): void {
    const { view, self, crypto, genesis } = this.#options;
    const root = rootOf(crypto, genesis, header);
    const { instance, digest, timestampMs } = header;
    this.#attempt = {
      donor,
      header,
      fetch: new CheckpointFetch({
        crypto,
        view: view.id,
        port: this.#port,
        donor,
        header,
        root,
        held: this.#held,
        retain: (digests) => this.#retain(digests),
        stage: (chunks) => this.#effects.push({ type: "stage", chunks }),
      }),
      witnesses: new Witnesses({
        view,
        self,
        donor,
        rootsOf: (member) => this.#offers.rootsOf(member),
        contradictsItself: (member) => this.#port.blame(member, "ROOTS_CONTRADICT", true),
      }),
      stage: "fetching",
      executed: { instance, digest, timestampMs },
      busy: false,
      believed: false,
      settledFrom: 0,
      tryAfter: 0,
      patienceUs: PROBE_PATIENCE_US,
      probe: new Probe({ view, crypto, port: this.#port }),
      progressUs: this.#nowUs,
      provenEnd: null,
    };
    this.#log.rebase(instance);
    this.#effects.push({ type: "chosen", donor, header });
  }

  #retain(digests: ReadonlySet<Digest>): void {
    for (const digest of [...this.#held.keys()]) if (!digests.has(digest)) this.#held.delete(digest);
    this.#effects.push({ type: "retain", digests });
  }

  #lied(code: string): void {
    const donor = this.#attempt?.donor;
    if (donor === undefined) return;
    this.#donors.lied(donor);
    this.#port.blame(donor, code, true);
    this.#drop(code);
  }

  #drop(code: string): void {
    const attempt = this.#attempt;
    if (!attempt) return;
    attempt.fetch.flush();
    this.#donors.dropped(attempt.donor);
    this.#attempt = null;
    this.#discarding = true;
    this.#offers.forgetRootsBelow(this.#donors.position);
    this.#effects.push({ type: "dropped", donor: attempt.donor, code }, { type: "discard" });
  }

  // ---- one thing after the other

  #advance(): void {
    if (this.#nowUs - this.#offersAskedUs >= OFFER_INTERVAL_US) {
      this.#offersAskedUs = this.#nowUs;
      for (const member of this.#options.view.members) this.#askOffer(member.id);
    }
    if (this.#discarding) return;
    if (!this.#attempt) {
      const choice = this.#donors.next();
      if (choice) this.#begin(choice);
      else if (this.#donors.needless) this.#needless();
    }
    const attempt = this.#attempt;
    if (!attempt) return;
    if (!attempt.believed) this.#logFetch.ask(this.#offers.target, attempt.donor);
    const fault = historyFault(attempt, this.#log);
    if (fault) this.#lied(fault);
    if (this.#attempt) this.#advanceAttempt(attempt);
    if (this.#attempt) this.#watch(attempt);
  }

  #advanceAttempt(attempt: Attempt): void {
    if (attempt.stage === "fetching") {
      if (!attempt.fetch.complete) {
        attempt.fetch.ask();
        return;
      }
      attempt.stage = "loading";
      this.#effects.push({ type: "complete", place: attempt.executed });
    }
    if (attempt.stage !== "executing" || attempt.busy) return;
    if (!attempt.believed) this.#judgeRoots(attempt);
    if (!this.#attempt) return;
    if (attempt.believed) {
      if (!this.#replay(attempt, Number.POSITIVE_INFINITY)) this.#finish(attempt);
      return;
    }
    const { instance } = attempt.executed;
    const next = attempt.witnesses.next(instance, this.#reachable(attempt));
    if (next === null) {
      this.#askBeyond(attempt, this.#reachable(attempt));
      return;
    }
    if (next > instance) {
      if (!this.#replay(attempt, next) && attempt.provenEnd === instance) this.#askBeyond(attempt, instance);
      return;
    }
    attempt.busy = true;
    attempt.witnesses.computing(instance);
    this.#effects.push({ type: "computeRoot", instance });
  }

  #judgeRoots(attempt: Attempt): void {
    const { witnesses, header } = attempt;
    witnesses.judge();
    if (witnesses.refuted) {
      this.#lied("CHECKPOINT_ROOT");
      return;
    }
    // Without witnesses (f = 0, or cft) it is the proven history that speaks for the checkpoint, where there is any.
    const grounded =
      this.#options.view.rootWitnesses > 0 || this.#log.baseDigest !== null || header.instance >= this.#offers.target;
    if (witnesses.believed && grounded) this.#believe(attempt);
  }

  #believe(attempt: Attempt): void {
    attempt.believed = true;
    this.#effects.push({ type: "believed", instance: attempt.executed.instance });
    for (const member of attempt.witnesses.contradicting) this.#port.blame(member, "ROOT_CONTRADICTS", false);
  }

  // ---- one instance beyond what is proven (docs/decisions/021)

  /**
   * There is no root to compare on the proven history: up to its `end` it is executed, if one lies right above. Each time that is
   * waited for longer, so that who lures on with such roots does not keep this replica from waiting for others.
   */
  #askBeyond(attempt: Attempt, end: number): void {
    const { instance } = attempt.executed;
    if (instance < attempt.tryAfter) {
      this.#replay(attempt, attempt.tryAfter);
      return;
    }
    const members = attempt.witnesses.at(end + 1);
    if (members.length === 0) return;
    if (attempt.tryAfter === end) attempt.probe.ask(members, end + 1);
    else if (this.#nowUs - attempt.progressUs >= attempt.patienceUs) {
      attempt.tryAfter = end;
      attempt.patienceUs *= 2;
    }
  }

  /** False: it is no answer to that. */
  #onBeyond(attempt: Attempt, from: ReplicaId, message: MessageOf<"HISTORY">): boolean {
    if (attempt.stage !== "executing" || attempt.busy || attempt.believed || this.#discarding) return false;
    const trial = attempt.probe.onHistory(from, message, attempt.executed);
    if (trial?.type === "contradicts") attempt.witnesses.contradicted(from);
    if (trial?.type === "batch") {
      attempt.busy = true;
      attempt.probe.began(from);
      this.#effects.push({ type: "try", batch: trial.batch });
    }
    return trial !== null;
  }

  #onTried(attempt: Attempt, instance: number, root: Digest | null): void {
    const { probe, witnesses } = attempt;
    const member = probe.ended();
    if (member === null) return;
    if (root === null) witnesses.contradicted(member);
    else if (witnesses.tried(member, instance, root)) attempt.settledFrom = instance;
  }

  /** False when there is nothing to execute. */
  #replay(attempt: Attempt, to: number): boolean {
    const batches = this.#log.take(to, REPLAY_BYTES);
    const last = batches.at(-1);
    if (!last) return false;
    attempt.busy = true;
    attempt.executed = { instance: last.instance, digest: last.digest, timestampMs: timestampMsOf(last) };
    this.#offers.forgetRootsBelow(last.instance);
    this.#effects.push({ type: "replay", batches });
    return true;
  }

  #finish(attempt: Attempt): void {
    this.#finished = true;
    const { executed: place, settledFrom } = attempt;
    const settled = place.instance >= settledFrom ? 0 : settledFrom;
    // A certificate of bft stands for the votes of Q members; an accept record of cft only for the one that made it.
    const certificate = this.#options.view.mode === "cft" ? null : this.#offers.certificateAt(place.instance);
    this.#effects.push({ type: "accepted", certificate, place, settledFrom: settled });
  }

  #progressed(): void {
    if (this.#attempt) this.#attempt.progressUs = this.#nowUs;
  }

  /** The replica goes on by log. */
  #needless(): void {
    this.#finished = true;
    this.#effects.push({ type: "needless" });
  }

  /** Tries another donor when nothing goes on with this one, be it its fault or not. */
  #watch(attempt: Attempt): void {
    if (attempt.stage === "fetching") {
      if (attempt.fetch.stalled) {
        // It may be dead, and with it the only checkpoint there is.
        this.#donors.gone(attempt);
        this.#drop("STALLED");
      } else if (attempt.fetch.slow && this.#donors.other(attempt.donor)) this.#drop("SLOW");
      return;
    }
    if (attempt.stage === "loading" || attempt.busy || attempt.believed || this.#finished) return;
    const { instance } = attempt.executed;
    const needsRoots = this.#options.view.rootWitnesses > 0;
    const forLog = attempt.witnesses.next(instance, this.#reachable(attempt)) !== null;
    const stalledUs = this.#nowUs - attempt.progressUs;
    if (stalledUs < LOG_STALL_US) return;
    const other = this.#donors.other(attempt.donor);
    // Those that have no root yet may be waiting like this one, which then must not wait for them.
    if (!forLog && !other && this.#donors.logMayDo) {
      this.#needless();
      return;
    }
    // Roots take their time; but there is no use in waiting for some where others are there already.
    if (needsRoots && !forLog && !other?.witnessed && stalledUs < ROOT_STALL_US) return;
    if (other) this.#drop(forLog ? "LOG_MISSING" : "ROOTS_MISSING");
    // Who had the log above it is gone. Without witnesses nobody lies, and others may wait for this replica to go on.
    else if (!needsRoots) this.#believe(attempt);
    else {
      attempt.provenEnd = instance;
      attempt.progressUs = this.#nowUs;
    }
  }

  #verify(checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void {
    const ticket = ++this.#lastTicket;
    this.#verifications.set(ticket, then);
    this.#effects.push({ type: "verify", ticket, checks });
  }
}
