/**
 * The pure core of a replica: ordering, catching up, heartbeats and the request queue behind one synchronous
 * `step(input) -> effects` (docs/protocol.md section 4). The same code runs under the driver and in simulation.
 */
import type { Digest } from "../protocol/bytes.ts";
import { assert, assertNever, type Rejection, reject } from "../protocol/errors.ts";
import { STATUS_INSTANCES_MAX } from "../protocol/limits.ts";
import { type Message, type MessageOf, statusStatement } from "../protocol/messages.ts";
import { memberOf, type ReplicaId } from "../protocol/view.ts";
import { decidedBy, type Link } from "../protocol/view-chain.ts";
import { type ContextOptions, CoreContext } from "./consensus/context.ts";
import type { Effect, Input, OfferFacts } from "./consensus/contract.ts";
import { Forwarding } from "./consensus/forwarding.ts";
import { LeaderRecord } from "./consensus/leader-record.ts";
import { Ordering } from "./consensus/ordering.ts";
import { Recollection } from "./consensus/recollection.ts";
import { Regency } from "./consensus/regency.ts";
import { RequestQueue } from "./consensus/request-queue.ts";
import type { Forgotten, Position, Start } from "./consensus/restart.ts";
import { BATCH_FETCH_RETRY_US } from "./consensus/running-instance.ts";
import { Suspicion } from "./consensus/suspicion.ts";
import { Synchronization } from "./consensus/synchronization.ts";
import { CatchUp } from "./recovery/catch-up.ts";
import type { LogProgress } from "./recovery/log-progress.ts";

/** An OFFER goes to one member no more often than this: it is large, asking for it is not, and a frame asks many times. */
const OFFER_INTERVAL_US = 100_000;
/** Timers are looked at this often. */
const TIMERS_INTERVAL_US = 50_000;

export interface CoreState {
  readonly view: number;
  readonly regency: number;
  /** The regency this replica asks for; above `regency` while it wants another leader. */
  readonly wantedRegency: number;
  /** Has the SYNC of this regency been verified, so that its leader may propose? */
  readonly synchronized: boolean;
  readonly leader: ReplicaId;
  /** Turns of leaders that this replica has seen end since its start. */
  readonly handovers: number;
  /** Members that failed as leaders and have less patience until they have led for a while. */
  readonly onProbation: readonly ReplicaId[];
  readonly lastDecided: Position;
  readonly abstainingUntil: number;
  readonly holding: boolean;
  readonly catchingUp: boolean;
  /** The journal was lost or is too old, and what this replica voted is not settled yet. */
  readonly forgotten: boolean;
  /** Enough others said what they remember of this replica: it may vote. */
  readonly heard: boolean;
  readonly pendingRequests: number;
  readonly pendingBytes: number;
  readonly bufferedMessages: number;
}

export class Core {
  readonly queue = new RequestQueue();
  readonly #context: CoreContext;
  readonly #regency: Regency;
  readonly #ordering: Ordering;
  readonly #synchronization: Synchronization;
  readonly #suspicion: Suspicion;
  readonly #catchUp: CatchUp;
  readonly #forwarding: Forwarding;
  readonly #recollection: Recollection;
  readonly #offeredUs = new Map<ReplicaId, number>();
  readonly #served = new Map<ReplicaId, { readonly digest: Digest; readonly atUs: number }>();
  /** A clean stop is near: whenever it is our turn to act we hand over. */
  #draining = false;
  #handovers = 0;
  #statusAtUs = Number.NEGATIVE_INFINITY;
  #statusInstance = 0;
  #timersAtUs = 0;
  /** A link from this view, while its instance is not decided here. */
  #pendingLink: Link | null = null;
  #stepping = false;
  #stopped = false;

  constructor(options: ContextOptions, start: Start) {
    this.#context = new CoreContext(options);
    const context = this.#context;
    context.holdJournal();
    const { requestTimeoutMs } = context.options;
    const { f, rotation, faultModel } = context.view;
    const record = faultModel === "malicious" ? new LeaderRecord({ f, rotation, requestTimeoutMs }) : null;
    this.#suspicion = new Suspicion({ ...context.options, self: context.self }, record);
    this.#regency = new Regency(start);
    this.#ordering = new Ordering(context, this.queue, this.#regency, start, {
      recollection: () => this.#recollection,
      leaderFailed: (reason) => this.#suspect(reason),
      proposedAfter: (delayUs) => this.#suspicion.proposedAfter(delayUs),
      // What we measure while we catch up says nothing about the leader.
      decided: (led) => {
        this.#suspicion.decided(context.nowUs, this.#catchUp.behind ? null : led);
        if (this.#pendingLink) this.#ordering.linked(this.#pendingLink);
      },
      handedOver: () => this.#handedOver(),
      // Its last batch has to be journaled and executed, whatever others remember of this replica.
      linked: () => {
        if (!this.#recollection.heard) this.#viewOver();
      },
      started: () => this.#synchronization.progress(),
    });
    this.#recollection = new Recollection(context, start, {
      executedUpTo: () => this.#ordering.chain.executedUpTo,
      regency: () => this.#regency.number,
      newestAccepted: () => this.#ordering.newestAccepted,
      changed: () => this.#allowed(),
      wanted: (regency) => this.#synchronization.want(regency),
    });
    this.#catchUp = new CatchUp({
      view: context.view,
      viewAt: context.viewAt,
      self: context.self,
      crypto: context.crypto,
      nowUs: () => context.nowUs,
      regency: () => this.#regency.number,
      position: () => this.#ordering.chain.lastDecided,
      busy: () => this.#ordering.executionLags,
      send: (to, message) => context.send(to, message),
      verify: (checks, then) => context.verify(checks, then),
      learn: (batches, certificate) => {
        this.#ordering.chain.learn(batches, certificate);
        this.#synchronization.progress();
      },
      misbehaved: (replica, code) => context.emit({ type: "misbehaved", replica, code }),
      beyondReach: (reason) => context.emit({ type: "transfer", reason }),
      emptyLagMax: context.options.emptyLagMax,
      outOfReachUs: (context.options.outOfReachMs ?? 0) * 1_000,
    });
    this.#synchronization = new Synchronization(context, this.#regency, this.#ordering, start, {
      anchor: (anchor) => this.#catchUp.anchor(anchor),
      historyAt: (instance, sources) => this.#catchUp.historyAt(instance, sources),
      testifies: () => this.#recollection.testifies && !context.observes,
      installed: (failed) => this.#installed(failed),
      mustSign: (client) => this.#demand(client),
    });
    this.#forwarding = new Forwarding(context, this.queue, this.#regency, {
      batchTimeMs: () => this.#ordering.chain.lastDecided.timestampMs,
      vouched: (digest) => this.#ordering.vouched(digest),
    });
    this.#synchronization.resume(start.resend);
  }

  get state(): CoreState {
    return {
      view: this.#context.view.id,
      regency: this.#regency.number,
      wantedRegency: this.#synchronization.wanted,
      synchronized: this.#regency.synced !== null,
      leader: this.#ordering.leader,
      handovers: this.#handovers,
      onProbation: this.#suspicion.onProbation,
      lastDecided: this.#ordering.chain.lastDecided,
      abstainingUntil: this.#ordering.abstainingUntil,
      holding: this.#ordering.holding,
      catchingUp: this.#catchUp.active,
      forgotten: this.#recollection.forgotten !== null,
      heard: this.#recollection.heard,
      pendingRequests: this.queue.pending,
      pendingBytes: this.queue.pendingBytes,
      bufferedMessages: this.#ordering.bufferedMessages,
    };
  }

  /** Of catching up by log; null while not much is missing. */
  get catchUpProgress(): LogProgress | null {
    return this.#catchUp.progress;
  }

  get lastDecided(): number {
    return this.#ordering.chain.lastDecided.instance;
  }

  /** May reads be answered? Not from accepting a batch that ends the view on: the next view may be ahead unseen. */
  get ending(): boolean {
    return this.#ordering.ending;
  }

  /** Does this replica know that it has executed what it executed before it lost its journal, if it did? */
  get current(): boolean {
    return this.#recollection.current;
  }

  /** The newest STATUS a member sent: its own word, unverified. */
  statusOf(replica: ReplicaId): MessageOf<"STATUS"> | undefined {
    return this.#catchUp.statusOf(replica);
  }

  /** One input, all its effects. Never re-entrant. */
  step(input: Input): readonly Effect[] {
    assert(!this.#stepping, "step is not re-entrant");
    this.#stepping = true;
    if (!this.#stopped) {
      this.#handle(input);
      this.#learnLast();
    }
    this.#stepping = false;
    return this.#context.takeEffects();
  }

  #handle(input: Input): void {
    switch (input.type) {
      case "message": {
        const rejection = this.#receive(input.from, input.message);
        if (rejection) this.#context.emit({ type: "misbehaved", replica: input.from, code: rejection.code });
        return;
      }
      case "request":
        this.#forwarding.add(input.request, input.envelope, input.replier);
        return;
      case "tick":
        this.#context.nowUs = input.nowUs;
        this.#context.wallMs = input.wallMs;
        this.#tick();
        return;
      case "journaled":
        this.#context.journaled(input.ticket);
        return;
      case "verified":
        this.#context.verified(input.ticket, input.valid);
        return;
      case "executed":
        this.#ordering.chain.executed(input);
        this.#catchUp.resume();
        return;
      case "connected":
        this.#context.send(input.peer, this.#status());
        this.#synchronization.resend(input.peer);
        this.#ordering.resend(input.peer);
        this.#recollection.connected(input.peer);
        return;
      case "link":
        this.#onLink(input.link);
        return;
      case "draining":
        this.#draining = true;
        this.#resign();
        return;
      case "stop":
        this.#stop();
        return;
      default:
        assertNever(input);
    }
  }

  /**
   * Says what left beyond the accept records; nothing is sent after this. While the journal is held nothing new left: what it
   * says of an earlier stop goes on to count, and a regency that is not in it yet must not hide that.
   */
  #stop(): void {
    this.#stopped = true;
    const votes = this.#ordering.stop();
    const syncs = this.#synchronization.stop();
    this.#context.emit({
      type: "stopping",
      messages: votes && !this.#context.holdsJournal ? [...syncs, ...votes] : null,
    });
  }

  #receive(from: ReplicaId, message: Message): Rejection | null {
    if (this.#serves(from, message)) return null;
    if (!memberOf(this.#context.view, from)) return reject("ignore", "NOT_A_MEMBER");
    // History proves itself, whichever view its sender is in.
    const ours = message.view === this.#context.view.id;
    if (!ours && message.type !== "HISTORY" && message.type !== "BATCH") return null;
    if (ours) this.#suspicion.heard(from, this.#context.nowUs);
    switch (message.type) {
      case "WRITE":
      case "ACCEPT":
        this.#recollection.sawVote(from, message);
        return this.#ordering.receive(from, message);
      case "PROPOSE":
      case "SIGNED_ACCEPT":
        return this.#ordering.receive(from, message);
      case "STATUS":
        this.#catchUp.onStatus(from, message);
        this.#synchronization.onStatuses(this.#catchUp.statuses);
        return null;
      case "FORWARD":
        return this.#forwarding.onForward(from, message);
      case "BATCH":
        return this.#onBatch(message);
      case "HISTORY":
        if (this.#ordering.chain.onHistory(message)) this.#synchronization.progress();
        return this.#catchUp.onHistory(from, message);
      case "STOP":
        this.#synchronization.onStop(from, message);
        return null;
      case "STOPDATA":
        return this.#synchronization.onStopData(from, message);
      case "SYNC":
        return this.#synchronization.onSync(from, message);
      case "OFFER":
        this.#recollection.onOffer(from, message);
        return null;
      case "ROOT":
        this.#context.emit({ type: "root", from, message });
        return null;
      case "MANIFEST":
      case "CHUNK":
        // The answer to a transfer that is over.
        return null;
      case "FETCH_BATCH":
      case "FETCH_HISTORY":
      case "FETCH_OFFER":
      case "FETCH_MANIFEST":
      case "FETCH_CHUNK":
        // Served above.
        return null;
      case "LINKS":
      case "FETCH_LINKS":
        // The driver's: it knows the chain of views.
        return null;
      default:
        return assertNever(message);
    }
  }

  /** Log and checkpoints go to whoever may have a link, whatever view it is in: members, former and future ones. */
  #serves(from: ReplicaId, message: Message): boolean {
    switch (message.type) {
      case "FETCH_BATCH":
        this.#serveBatch(from, message);
        return true;
      case "FETCH_HISTORY":
        this.#serveHistory(from, message);
        return true;
      case "FETCH_OFFER":
        this.#offer(from, message);
        return true;
      case "FETCH_MANIFEST":
      case "FETCH_CHUNK":
        this.#context.emit({ type: "serveImage", to: from, message });
        return true;
      default:
        return false;
    }
  }

  /** The view ends where this link says; whoever sent it has the history up to there. */
  #onLink(link: Link): void {
    const { crypto, cluster, view, self } = this.#context;
    const { instance } = link;
    this.#viewOver();
    if (this.lastDecided >= instance) {
      this.#ordering.linked(link);
      return;
    }
    this.#catchUp.endsAt({ instance, digest: decidedBy(crypto, cluster, link) });
    this.#pendingLink = link;
    const others = view.members.map(({ id }) => id).filter((id) => id !== self);
    this.#catchUp.historyAt(instance + 1, others);
  }

  /** Nothing that this replica says counts any more in this view, and nothing that it may have said. */
  #viewOver(): void {
    this.#context.viewOver();
    this.#recollection.viewOver();
  }

  /** The last batch of the view is in its link. */
  #learnLast(): void {
    const link = this.#pendingLink;
    const { chain } = this.#ordering;
    if (!link || chain.lastDecided.instance !== link.instance - 1) return;
    const { crypto, cluster } = this.#context;
    const { instance, batch: bytes } = link;
    chain.learn([{ instance, digest: decidedBy(crypto, cluster, link), bytes }]);
    this.#synchronization.progress();
  }

  /** A fetched batch may be the one that a synchronizer was waiting for. */
  #onBatch(message: MessageOf<"BATCH">): Rejection | null {
    const rejection = this.#ordering.chain.onBatch(message);
    if (!rejection) this.#synchronization.progress();
    return rejection;
  }

  #serveBatch(to: ReplicaId, message: MessageOf<"FETCH_BATCH">): void {
    const { instance, digest, view } = message;
    const batch = this.#ordering.chain.candidate(instance, digest)?.bytes;
    const regency = this.#regency.number;
    if (batch) {
      if (this.#mayServe(to, digest)) this.#context.send(to, { type: "BATCH", view, regency, instance, digest, batch });
    } else if (instance <= this.#ordering.chain.lastDecided.instance) {
      this.#context.emit({ type: "serveBatch", to, instance, digest });
    }
  }

  /** A batch is large and asking for it is not: the same one goes to a member no more often than a correct one asks. */
  #mayServe(to: ReplicaId, digest: Digest): boolean {
    const { nowUs } = this.#context;
    const last = this.#served.get(to);
    if (last?.digest === digest && nowUs - last.atUs < BATCH_FETCH_RETRY_US / 2) return false;
    this.#served.set(to, { digest, atUs: nowUs });
    return true;
  }

  /** Only what is in our journal as decided is ours to give. */
  #serveHistory(to: ReplicaId, message: MessageOf<"FETCH_HISTORY">): void {
    const decided = Math.min(this.#ordering.chain.lastDecided.instance, this.#ordering.chain.durableUpTo);
    const upTo = Math.min(message.to, decided);
    if (message.from > 0 && message.from <= upTo) {
      this.#context.emit({ type: "serveHistory", to, from: message.from, upTo });
    }
  }

  #offer(to: ReplicaId, { rootsFrom }: MessageOf<"FETCH_OFFER">): void {
    const { nowUs } = this.#context;
    if (nowUs - (this.#offeredUs.get(to) ?? Number.NEGATIVE_INFINITY) < OFFER_INTERVAL_US) return;
    const remembered = this.#recollection.factsFor(to);
    if (!remembered) return;
    this.#offeredUs.set(to, nowUs);
    this.#context.emit({ type: "offer", to, rootsFrom, facts: { ...this.offerFacts, ...remembered } });
  }

  /** W others have decided much more than this replica. */
  get behind(): boolean {
    return this.#catchUp.behind;
  }

  /** How far this replica may have voted and does not know it. */
  get forgotten(): Forgotten | null {
    return this.#recollection.forgotten;
  }

  /** What an OFFER says to somebody who is no member. */
  get offerFacts(): OfferFacts {
    const { id: view } = this.#context.view;
    const { number: regency } = this.#regency;
    const decided = Math.min(this.#ordering.chain.lastDecided.instance, this.#ordering.chain.durableUpTo);
    const newest = this.#ordering.newestAccepted;
    return { view, regency, wanted: this.#synchronization.askedFor, decided, newest, yourWrite: null };
  }

  /** Votes may leave that could not before. */
  #allowed(): void {
    this.#ordering.allowed();
    this.#synchronization.allowed();
  }

  #tick(): void {
    const { nowUs, options } = this.#context;
    const intervalUs = options.statusIntervalMs * 1000;
    const due = nowUs - this.#statusAtUs >= intervalUs;
    if (due || this.lastDecided - this.#statusInstance >= STATUS_INSTANCES_MAX) {
      this.#statusAtUs = nowUs;
      this.#statusInstance = this.lastDecided;
      this.#context.broadcast(this.#status());
      if (due && this.#catchUp.abstainingUntil > this.lastDecided) this.#ordering.wantEmptyBatch();
    }
    if (nowUs - this.#timersAtUs >= TIMERS_INTERVAL_US) this.#timers();
    this.#ordering.propose();
    // In every tick: a timer that fires a little early must not be the last one.
    this.#context.emit({ type: "wake", atUs: this.#statusAtUs + intervalUs });
    if (this.#waiting) this.#context.emit({ type: "wake", atUs: this.#timersAtUs + TIMERS_INTERVAL_US });
  }

  /** Is there anything that a leader owes us? */
  get #waiting(): boolean {
    const { proposedSinceUs, abstainingUntil } = this.#ordering;
    const { heard, forgotten } = this.#recollection;
    const recalling = !heard || forgotten !== null;
    const unfinished = this.#regency.synced === null || proposedSinceUs !== null || abstainingUntil > 0 || recalling;
    return unfinished || this.queue.pending > 0;
  }

  #timers(): void {
    const { nowUs } = this.#context;
    this.#timersAtUs = nowUs;
    this.#recollection.tick();
    this.#catchUp.tick();
    this.#ordering.tick();
    this.#forwarding.tick(this.#suspicion.timeoutUs, this.#suspicion.forwardAfterUs(this.#ordering.acting, nowUs));
    this.#judgeLeader();
    this.#synchronization.tick(this.#suspicion.timeoutUs);
  }

  /** Second timeout of a request, or whatever else a leader owes: ask for another one. */
  #judgeLeader(): void {
    const { nowUs, view, self } = this.#context;
    const { acting } = this.#ordering;
    if (this.#context.observes) return;
    if (this.#ordering.obstructs) this.#synchronization.leaveRegency();
    if (this.#synchronization.wanted > this.#regency.number) return;
    const reason = this.#suspicion.verdict({
      nowUs,
      synced: this.#synchronization.delivered,
      acting,
      leading: acting === self,
      // Whoever failed last is left for what waits here alone: witnesses would cost the time that this is to save.
      oldestDueUs: this.queue.lateness.oldestDueUs(this.#suspicion.isOnProbation(acting) ? 1 : view.witnesses),
      neglectedSinceUs: view.faultModel === "malicious" ? this.queue.lateness.neglectedSinceUs(view.witnesses) : null,
      behind: this.#catchUp.behind,
      proposedSinceUs: this.#ordering.proposedSinceUs,
      abstaining: this.#ordering.abstainingUntil > 0,
    });
    if (reason) this.#suspect(reason);
  }

  #suspect(reason: string): void {
    if (this.#context.observes) return;
    if (this.#synchronization.wanted > this.#regency.number) return;
    this.#context.emit({ type: "suspect", leader: this.#ordering.acting, reason });
    this.#synchronization.leaveRegency();
  }

  #installed(failed: ReplicaId): void {
    this.#suspicion.regencyInstalled(this.#context.nowUs, this.#catchUp.behind ? null : failed);
    this.#context.emit({ type: "regency", regency: this.#regency.number, leader: this.#ordering.leader });
  }

  #handedOver(): void {
    this.#handovers++;
    this.#suspicion.handedOver(this.#context.nowUs);
    if (this.#draining) this.#resign();
  }

  #resign(): void {
    if (this.#ordering.acting === this.#context.self) this.#synchronization.leaveRegency();
  }

  #demand(client: Digest): void {
    if (this.queue.mustSign(client)) this.#context.emit({ type: "mustSign", client });
  }

  #status(): MessageOf<"STATUS"> {
    const { view, cluster, signer } = this.#context;
    const { abstainingUntil } = this.#ordering;
    const { lastDecided } = this.#ordering.chain;
    const statement = {
      view: view.id,
      regency: this.#regency.durable,
      decided: lastDecided.instance,
      digest: lastDecided.digest,
      abstainingUntil,
    };
    return { type: "STATUS", ...statement, signature: signer(statusStatement(cluster, statement)) };
  }
}
