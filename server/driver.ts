/**
 * The driver: one event loop, inputs into the core, effects out, in order. Everything real (links, gateway, storage,
 * clock) stands behind a port, so that the simulator runs this very code.
 *
 * A turn: tick the core (it proposes), flush the links, execute one decided batch and reply, flush again. So the next
 * instance is on its way before the last one executes. A batch executes only once it is in the own journal as decided:
 * replies would have to wait for that anyway, and so the state store never gets ahead of the journal.
 */
import { type Digest, keepable } from "../protocol/bytes.ts";
import type { Signer } from "../protocol/crypto/contract.ts";
import { assertNever, isRejection } from "../protocol/errors.ts";
import { decodeMessage, encodeMessage, type Message } from "../protocol/messages.ts";
import { EVERYBODY, type Request } from "../protocol/request.ts";
import { memberOf, type ReplicaId } from "../protocol/view.ts";
import type { DiskUse, JournalRecord } from "../storage/contract.ts";
import { Archive, type ArchiveStatus } from "./archive/archive.ts";
import { Authenticity } from "./authenticity.ts";
import type { Authenticate, CoreRecord, Decision, Effect, Input, Ticket } from "./consensus/contract.ts";
import { resultCosts } from "./consensus/debts.ts";
import { Core } from "./core.ts";
import type { Alarm, Ending, ReplicaParts } from "./driver-contract.ts";
import { Intake } from "./intake.ts";
import type { ClientConnection, Gateway, Links } from "./network/contract.ts";
import { RecentInputs } from "./recent-inputs.ts";
import type { OrderedReply } from "./service/executor.ts";
import type { SnapshotSource } from "./snapshot/access.ts";
import { ViewChange } from "./view-change.ts";
import { WriteBehind } from "./write-behind.ts";

/** What this replica shows as its state is computed anew when it is older than so many instances. */
const PROVEN_STATE_AGE = 10_000;

export class Driver {
  readonly intake: Intake;
  readonly authenticity: Authenticity;
  readonly #parts: ReplicaParts;
  readonly #core: Core;
  readonly #toExecute: Decision[] = [];
  readonly #behind: WriteBehind;
  readonly #viewChange: ViewChange;
  readonly archive: Archive;
  /** No read is answered below: every instance the journal held at start is to be executed, and the state settled. */
  readonly #readsFrom: number;
  #links: Links | null = null;
  #gateway: Gateway | null = null;
  #durableUpTo: number;
  #turnDue = false;
  #wakeAtUs = Number.POSITIVE_INFINITY;
  #cancelWake: (() => void) | null = null;
  #diskLow = false;
  readonly #recent = new RecentInputs();
  #draining = false;
  #halted = false;
  /** The core says no more: asked once, however many reasons to end there are. */
  #coreStopped: Promise<void> | null = null;
  #stopped: () => void = () => undefined;
  #leaving = false;
  /** What is executed is being written: no input is taken any more. */
  #closing = false;
  /** How the life of this object ended; nothing of it touches the disk afterwards. */
  readonly ended: Promise<Ending>;
  #end: (ending: Ending) => void = () => undefined;

  constructor(parts: ReplicaParts) {
    this.#parts = parts;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const { crypto, cluster, self, identity, verifier, start, options, executor, hooks } = parts;
    this.authenticity = new Authenticity({ crypto, cluster, self, identity, known: executor.grants });
    this.#durableUpTo = start.lastDecided.instance;
    this.#readsFrom = Math.max(start.newest?.instance ?? 0, parts.settledFrom);
    // A statement must be the administrators' too, or a liar could fill batches with signatures to be verified in execution.
    const authenticate: Authenticate = hooks.authenticating((request, envelope) =>
      request.kind === "administer" && !executor.proven(request)
        ? "unproven"
        : this.authenticity.authenticate(request, envelope),
    );
    const signer = crypto.signer(identity.signSeed);
    // What nobody may order any more waits for no leader either.
    const settled = (request: Request): boolean =>
      executor.lookup(request) !== null || (request.kind !== "administer" && !executor.permits(request.client));
    this.#core = new Core(
      {
        view: cluster.view,
        self,
        crypto,
        signer,
        authenticate,
        settled,
        options,
        firstInstance: parts.views.chain.firstInstanceOf(cluster.view.id),
        viewAt: (instance) => parts.views.chain.at(instance),
      },
      start,
    );
    const failed = (error: unknown): void => this.halt(error);
    this.#behind = new WriteBehind(executor, parts.storage.state, {
      nowUs: () => parts.clock.nowUs(),
      wake: (atUs) => this.#wake(atUs),
      written: (sinceUs) => {
        this.#observe("state_write", sinceUs);
        this.#schedule();
      },
      failed,
    });
    this.archive = this.#archiveOf(signer, failed);
    this.#viewChange = new ViewChange(parts.views, cluster.view, {
      send: (to, message) => {
        this.#links?.send(to, encodeMessage(message));
        this.#schedule();
      },
      follow: (link) => this.input({ type: "link", link }),
      executed: () => executor.view,
      over: () => this.#leave({ type: "view" }),
      after: (delayUs, run) => parts.clock.at(parts.clock.nowUs() + delayUs, run),
      behind: () => this.#leave({ type: "transfer", reason: "the log of this replica's view is not to be had" }),
    });
    this.intake = new Intake({
      crypto,
      cluster,
      self,
      authenticity: this.authenticity,
      verifier: (checks, then) =>
        verifier(checks, (valid) => {
          if (!this.#halted) this.#guarded(() => then(valid));
        }),
      openStage: parts.openIntakeStage,
      port: {
        accepting: () => !this.#draining,
        behind: () => this.#core.behind,
        answersReads: () => this.answersReads,
        permits: (client) => this.admits(client),
        lookup: (request) => (executor.applied.instance < parts.settledFrom ? null : executor.lookup(request)),
        leaves: (reply) => hooks.leaves(reply, { repeated: true }),
        refusal: (request) => hooks.refusal(request),
        query: (request) => executor.query(request),
        administered: (request) => executor.proven(request),
        queue: this.#core.queue,
        clock: parts.clock,
        turnDue: () => this.#schedule(),
        refusesGrowth: (request) => this.#diskLow && executor.grows(request),
        submit: (request, envelope, replier) => this.input({ type: "request", request, envelope, replier }),
        misbehaved: (client, code) => parts.observer.clientFault(client, code),
        guard: (work) => {
          if (!this.#halted) this.#guarded(work);
        },
        failed,
      },
    });
  }

  #archiveOf(signer: Signer, failed: (error: unknown) => void): Archive {
    const { crypto, cluster, self, storage, checkpointPeriod, clock, verifier, observer, executor, settledFrom } =
      this.#parts;
    const leaves = (send: () => void): void => {
      send();
      this.#schedule();
    };
    return new Archive({
      crypto,
      view: cluster.view,
      viewAt: (instance) => this.#parts.views.chain.at(instance),
      genesis: this.#parts.views.chain.genesis,
      self,
      signer,
      storage,
      checkpointPeriod,
      settledFrom,
      clock,
      verifier,
      observer,
      port: {
        place: () => {
          const { view, regency } = this.#core.state;
          return { view, regency };
        },
        executed: () => executor.applied.instance,
        cut: (then) => !this.#aheadOfLinks && this.#behind.cut(then),
        send: (to, message) => leaves(() => this.#links?.send(to, encodeMessage(message))),
        broadcast: (message) => leaves(() => this.#broadcast(message)),
        queuedBytes: (to) => this.#links?.queuedBytes(to) ?? 0,
        repair: (reason) => this.#leave({ type: "repair", store: "state", reason }),
        failed,
      },
    });
  }

  /** Joins the network. Links that stood before this get what was said into the void: everything is sent again. */
  run(links: Links, gateway: Gateway): void {
    this.#links = links;
    this.#gateway = gateway;
    for (const peer of links.connected()) this.onConnected(peer);
    this.archive.start();
    this.#viewChange.follow();
    this.#schedule();
  }

  get core(): Core {
    return this.#core;
  }

  get executedInstance(): number {
    return this.#parts.executor.applied.instance;
  }

  /** The newest instance that journal or state held at the start. */
  get newestAtStart(): number {
    const { newest, lastDecided } = this.#parts.start;
    return Math.max(newest?.instance ?? 0, lastDecided.instance);
  }

  /** What an operator should look at. */
  get alarms(): readonly Alarm[] {
    return this.archive.alarms;
  }

  get snapshotSource(): SnapshotSource {
    return this.archive.source(() => this.#core.offerFacts);
  }

  get archiveStatus(): ArchiveStatus {
    return this.archive.status;
  }

  get executionBacklog(): number {
    return this.#toExecute.length;
  }

  /** True once this replica stopped, for good or ill. */
  get halted(): boolean {
    return this.#halted;
  }

  /** May this client be one now? Grants expire by batch time in execution; here the clock counts too, when nothing is ordered. */
  admits(client: Digest): boolean {
    const { executor, clock } = this.#parts;
    return executor.permits(client, clock.wallMs());
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Every instance that was journaled at start is executed, and no proposal from before is missing. */
  get recovered(): boolean {
    return this.executedInstance >= this.#readsFrom;
  }

  /** Less free disk than the reserve: commands that add to the state are refused, all others go on. */
  set diskLow(low: boolean) {
    if (low !== this.#diskLow)
      this.#parts.logger.warn({ low }, low ? "disk below its reserve" : "disk has space again");
    this.#diskLow = low;
  }

  get diskLow(): boolean {
    return this.#diskLow;
  }

  diskUse(): Promise<DiskUse> {
    return this.#parts.storage.diskUse();
  }

  // ---- inputs

  /** One message of an authenticated peer. */
  onMessage(from: ReplicaId, payload: Uint8Array): void {
    const message = decodeMessage(keepable(payload));
    if (isRejection(message)) {
      this.#parts.observer.fault("message", from, message.code);
      this.#links?.punish(from, message.code);
      return;
    }
    if (!this.#viewChange.receive(from, message)) this.input({ type: "message", from, message });
  }

  /** A client's request; both views are copied. */
  onRequest(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): void {
    if (!this.#halted) this.#guarded(() => this.intake.receive(connection, envelope, request));
  }

  onConnected(peer: ReplicaId): void {
    if (this.#halted) return;
    this.input({ type: "connected", peer });
    this.archive.connected(peer);
  }

  input(input: Input): void {
    if (this.#halted || this.#closing) return;
    this.#guarded(() => {
      if (!this.#turnDue) this.#tick();
      this.#step(input);
    });
    this.#schedule();
  }

  /** Our own bugs and damage met at run time end here: this replica halts instead of guessing. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#parts.logger.error({ inputs: this.#recent.list() }, "the last inputs");
      this.halt(error);
    }
  }

  #schedule(): void {
    if (this.#turnDue || this.#halted) return;
    this.#turnDue = true;
    this.#parts.clock.defer(this.#turn);
  }

  readonly #turn = (): void => {
    this.#turnDue = false;
    if (this.#halted) return;
    this.#guarded(() => {
      this.#tick();
      this.#links?.flush();
      this.#execute();
      this.#links?.flush();
      this.intake.turn();
      if (!this.#aheadOfLinks) this.#behind.write();
    });
    if (this.#executable) this.#schedule();
  };

  /** Before the first input of a burst, too: after an idle while the core must not judge by the time of its last tick. */
  #tick(): void {
    const { clock } = this.#parts;
    this.#step({ type: "tick", nowUs: clock.nowUs(), wallMs: clock.wallMs() });
  }

  #step(input: Input): void {
    this.#recent.add(input);
    for (const effect of this.#core.step(input)) this.#perform(effect);
  }

  // ---- effects

  #perform(effect: Effect): void {
    switch (effect.type) {
      case "send":
        if (effect.message.type === "FETCH_BATCH") this.#parts.observer.fetched("batch");
        if (effect.message.type === "FETCH_HISTORY") this.#parts.observer.fetched("history");
        this.#links?.send(effect.to, encodeMessage(effect.message));
        return;
      case "broadcast":
        this.#broadcast(effect.message);
        return;
      case "journal":
        this.#journal(effect.ticket, effect.records);
        return;
      case "verify": {
        const since = this.#parts.clock.nowUs();
        this.#parts.verifier(effect.checks, (valid) => {
          this.#observe("verify", since);
          this.input({ type: "verified", ticket: effect.ticket, valid });
        });
        return;
      }
      case "decide":
        this.#toExecute.push(effect.decision);
        return;
      case "durable":
        this.#durableUpTo = effect.instance;
        return;
      case "serveHistory":
        this.archive.log.history(effect.to, effect.from, effect.upTo);
        return;
      case "serveBatch":
        this.archive.log.batch(effect.to, effect.instance, effect.digest);
        return;
      case "offer":
        this.#links?.send(effect.to, encodeMessage(this.archive.offer(effect.facts, effect.rootsFrom)));
        return;
      case "serveImage":
        this.archive.serve(effect.to, effect.message);
        return;
      case "root":
        this.archive.root(effect.from, effect.message);
        return;
      case "transfer":
        this.#leave({ type: "transfer", reason: effect.reason });
        return;
      case "forgotten":
        this.#parts.rolledBack();
        return;
      case "remembered":
        this.#parts.remembered();
        return;
      case "link":
        this.#viewChange.linked(effect.link);
        return;
      case "suspect":
        this.#parts.observer.suspected(effect.leader, effect.reason);
        return;
      case "regency":
        this.#parts.observer.regencyInstalled(effect.regency, effect.leader);
        return;
      case "mustSign":
        this.authenticity.demandSignatures(effect.client);
        return;
      case "misbehaved":
        this.#parts.observer.fault("message", effect.replica, effect.code);
        return;
      case "wake":
        this.#wake(effect.atUs);
        return;
      case "stopping":
        this.#journalCleanStop(effect.messages);
        return;
      default:
        assertNever(effect);
    }
  }

  #broadcast(message: Message): void {
    const payload = encodeMessage(message);
    const { cluster, self } = this.#parts;
    for (const { id } of cluster.view.members) if (id !== self) this.#links?.send(id, payload);
    if (message.type !== "STATUS") return;
    // Who is to become a member, or was one, follows by it.
    for (const peer of this.#links?.connected() ?? [])
      if (!memberOf(cluster.view, peer)) this.#links?.send(peer, payload);
  }

  #observe(phase: "journal" | "verify" | "execute" | "state_write", sinceUs: number): void {
    this.#parts.observer.phase(phase, (this.#parts.clock.nowUs() - sinceUs) / 1_000_000);
  }

  #journal(ticket: Ticket, records: readonly CoreRecord[]): void {
    const since = this.#parts.clock.nowUs();
    this.#parts.storage.journal.append(records).then(
      () => {
        this.#observe("journal", since);
        this.input({ type: "journaled", ticket });
      },
      (error: unknown) => this.halt(error),
    );
  }

  #wake(atUs: number): void {
    if (atUs >= this.#wakeAtUs) return;
    this.#cancelWake?.();
    this.#wakeAtUs = atUs;
    this.#cancelWake = this.#parts.clock.at(atUs, () => {
      this.#wakeAtUs = Number.POSITIVE_INFINITY;
      this.#cancelWake = null;
      this.#schedule();
    });
  }

  // ---- execution and replies

  /** No state of a view reaches the disk before the link to that view does: a start could not tell how it came about. */
  get #aheadOfLinks(): boolean {
    return this.#parts.executor.view.id > this.#parts.views.stored;
  }

  /** The next batch may execute: it is durable, and the state store is not too far behind. */
  get #executable(): boolean {
    const next = this.#toExecute[0];
    return next !== undefined && next.instance <= this.#durableUpTo && !this.#behind.full;
  }

  #execute(): void {
    if (!this.#executable) return;
    const { instance, digest, batch } = this.#toExecute.shift() as Decision;
    const { executor, clock, observer } = this.#parts;
    const since = clock.nowUs();
    const replies = executor.execute(batch, digest);
    const tookUs = clock.nowUs() - since;
    this.#observe("execute", since);
    let bytes = 0;
    for (const request of batch.requests) bytes += request.bytes.length;
    this.#behind.executed(bytes);
    observer.decided({ instance, requests: batch.requests.length, bytes, digest });
    if (instance > this.#parts.settledFrom) this.#reply(replies);
    if (!this.#aheadOfLinks) this.archive.executed(instance, batch.requests.length);
    const { timestampMs } = batch;
    this.#step({ type: "executed", instance, tookUs, timestampMs, costs: resultCosts(replies, instance) });
    this.#viewChange.look();
  }

  #reply(replies: readonly OrderedReply[]): void {
    const leaving = replies.filter((reply) => this.#parts.hooks.leaves(reply, { repeated: false }));
    this.intake.replies(leaving, {
      connectionOf: (client, session) => this.#gateway?.connectionOf(client, session),
      replierOf: ({ key }) => this.#core.queue.find(key)?.replier ?? EVERYBODY,
    });
  }

  // ---- the end

  /** May unordered reads be answered from what is executed here? Section 3: not while that may be older than what others saw. */
  get answersReads(): boolean {
    return this.executedInstance >= this.#readsFrom && this.#core.current && !this.#core.ending;
  }

  /** Is this replica a member of the view it is in? */
  get member(): boolean {
    return memberOf(this.#parts.cluster.view, this.#parts.self) !== undefined;
  }

  /** A state that this replica has had and computed the root of, not long ago; null: none yet. */
  get provenState(): { readonly instance: number; readonly root: Digest } | null {
    return this.archive.newestRoot(Math.max(1, this.executedInstance - PROVEN_STATE_AGE));
  }

  /** Nobody needs this replica any more, which is no member. */
  retire(): void {
    this.#leave({ type: "retired" });
  }

  /** A clean stop: refuse what is new, give what is pending `drainMs`, journal what was sent, write the state. */
  async stop(drainMs: number): Promise<void> {
    this.#draining = true;
    this.input({ type: "draining" });
    const { clock, storage } = this.#parts;
    // A leader's resignation leaves once it is on disk.
    await storage.journal.append([]).catch((error: unknown) => this.halt(error));
    const deadlineUs = clock.nowUs() + drainMs * 1000;
    while (!this.#halted && this.#core.queue.pending > 0 && clock.nowUs() < deadlineUs) {
      await new Promise<void>((resolve) => clock.at(clock.nowUs() + 10_000, resolve));
    }
    await this.#close({ type: "stopped" });
  }

  /** Stops by itself, to go on as something else. */
  #leave(ending: Ending): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#draining = true;
    // Not within the step that found the reason.
    this.#parts.clock.defer(() => void this.#close(ending));
  }

  async #close(ending: Ending): Promise<void> {
    // It ends already, for another reason: no input would be taken any more.
    if (this.#halted || this.#closing) return;
    // What was sent in a view that is over is of no use in the next one.
    if (ending.type !== "view") await this.#stopCore();
    if (this.#halted || this.#closing) return;
    this.#closing = true;
    this.#stopped();
    try {
      while (this.#executable) this.#execute();
      this.archive.close();
      await this.#parts.views.store(this.#parts.storage.state);
      // Else the journal brings it back, up to where the link is missing.
      if (!this.#aheadOfLinks) await this.#behind.finish();
    } catch (error) {
      this.halt(error);
      return;
    }
    this.#halted = true;
    this.#cancelTimers();
    this.#end(ending);
  }

  #stopCore(): Promise<void> {
    this.#coreStopped ??= new Promise<void>((resolve) => {
      this.#stopped = resolve;
      this.input({ type: "stop" });
    });
    return this.#coreStopped;
  }

  #journalCleanStop(messages: readonly Message[] | null): void {
    if (messages === null) {
      this.#links?.flush();
      this.#stopped();
      return;
    }
    const record: JournalRecord = { type: "cleanStop", messages: messages.map(encodeMessage) };
    this.#links?.flush();
    this.#parts.storage.journal.append([record]).then(
      () => this.#stopped(),
      (error: unknown) => this.halt(error),
    );
  }

  #cancelTimers(): void {
    this.#cancelWake?.();
    this.#viewChange.close();
  }

  /** Ends at once: what has failed, or is not there any more, must not be written to again. */
  halt(error: unknown): void {
    if (this.#halted) return;
    this.#halted = true;
    this.archive.close();
    this.#cancelTimers();
    this.#stopped();
    this.#end({ type: "failed", error });
  }
}
