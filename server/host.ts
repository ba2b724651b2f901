/**
 * Runs one replica for as long as its process lives, over whatever happens to its disk: opens the directory, fetches a
 * checkpoint when the state does not reach the log, runs the replica, and begins again when that ends for a reason that can be
 * mended here (docs/protocol.md section 6). Each turn is like a crash and a start: nothing is carried over but what is on disk.
 *
 * Invariants: 1. at most one of replica and transfer runs, and the directory is open for it alone. 2. a damaged store is set
 * aside before it is begun anew. 3. what cannot be mended ends the process: a failed sync, a broken invariant, damage again
 * and again.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { assertNever, QuorateError } from "../protocol/errors.ts";
import { memberOf, type View } from "../protocol/view.ts";
import type { DiskUse, Repair, Storage } from "../storage/contract.ts";
import type { ConsensusOptions } from "./consensus/contract.ts";
import {
  type Forgotten,
  forgottenAfter,
  forgottenFrom,
  regenciesIn,
  type Start,
  startInView,
} from "./consensus/restart.ts";
import { Driver } from "./driver.ts";
import type { Alarm, Ending } from "./driver-contract.ts";
import type { HostParts, Peers, Stage } from "./host-contract.ts";
import { inThreadStage } from "./intake-stage/in-thread.ts";
import { Invitations } from "./invitations.ts";
import { LastingAlarms } from "./lasting-alarms.ts";
import { fetchLinks } from "./link-search.ts";
import type { Gateway, Links } from "./network/contract.ts";
import { type Recovered, recover } from "./recover.ts";
import { byLog } from "./recovery-report.ts";
import { RequestHooks } from "./request-hooks.ts";
import { formerMembers, isFormer, retireWhenDone } from "./retirement.ts";
import type { Executor } from "./service/executor.ts";
import { settledFrom } from "./transfer/settled.ts";
import type { TransferProgress } from "./transfer/transfer.ts";
import { transferStage } from "./transfer-stage.ts";
import { Views } from "./views.ts";

/** Stores set aside in one process before it gives up: a disk that damages everything is no disk. */
const REPAIRS_MAX = 4;
/** A full disk is looked at this often. */
const SPACE_INTERVAL_US = 1_000_000;
/** Where no checkpoint was to be had the log is out of reach for so long before one is asked for again; doubling. */
const OUT_OF_REACH_MS = 5_000;
const OUT_OF_REACH_MS_MAX = 60_000;
const UNFOUNDED =
  "the snapshot that this cluster begins with is missing or damaged in the data directory: the state comes from the other members once they have executed something, or copy the file from one of them and start again";
/** From one look for a checkpoint to the next while nobody may have one. */
const UNFOUNDED_PAUSE_US = 5_000_000;
const LOW = "less free disk than diskReserveBytes: commands that add to the state are refused with STORAGE_FULL";

export class Host {
  readonly #parts: HostParts;
  #stage: Stage = { type: "opening" };
  #repairs = 0;
  /** What was set aside while it was open: that it is missing at the next open is no news. */
  readonly #condemned = new Set<Repair["store"]>();
  readonly #lasting: LastingAlarms;
  #stopping = false;
  /** The log of nobody reaches down to the state. */
  #transferDue = false;
  /** So often no checkpoint was to be had: an empty state is not worth a transfer again, and a log out of reach not at once. */
  #needless = 0;
  /** While there is less free disk than the reserve. */
  #low: Alarm | null = null;
  #diskUse: DiskUse = { journalBytes: 0, stateBytes: 0, asideBytes: 0, stagingBytes: 0 };
  readonly #views: Views;
  readonly #invitations: Invitations;
  /** The state of the view that just ended, for the next one, and what was forgotten there and may matter here. */
  #carried: { readonly executor: Executor; readonly forgotten: Forgotten | null } | null = null;
  /** The journal is older than a vote of ours, which it may not say yet: writing that down may be what failed. */
  #older = false;
  /** Ends what runs now: set while a transfer or a wait for space can be interrupted. */
  #interrupt: (() => void) | null = null;
  #loop: Promise<void> | null = null;
  /** What an operator can look at is there: `start` resolves with the first call. */
  #stands: () => void = () => undefined;

  constructor(parts: HostParts) {
    this.#parts = parts;
    const { crypto, cluster, clock, observer } = parts;
    this.#lasting = new LastingAlarms(() => clock.wallMs());
    this.#invitations = new Invitations(crypto, cluster.id);
    this.#views = new Views({
      crypto,
      genesis: cluster.view,
      nowUs: () => clock.nowUs(),
      misbehaved: (from) => observer.fault("message", from, "LINK_INVALID"),
    });
  }

  /** The chain of views, as far as it is known. */
  get views(): Views {
    return this.#views;
  }

  get stage(): Stage {
    return this.#stage;
  }

  get replica(): Driver | null {
    return this.#stage.type === "replica" ? this.#stage.replica : null;
  }

  /** Of a transfer, or of catching up by log. */
  get recovery(): TransferProgress | null {
    if (this.#stage.type === "transfer") return this.#stage.transfer.progress;
    const { clock } = this.#parts;
    const progress = this.replica?.core.catchUpProgress;
    return progress ? byLog(progress, { nowUs: clock.nowUs(), wallMs: clock.wallMs() }) : null;
  }

  /** Less free disk than the reserve. */
  set diskLow(low: boolean) {
    const sinceMs = this.#parts.clock.wallMs();
    this.#low = low ? (this.#low ?? { code: "DISK_LOW", detail: LOW, sinceMs }) : null;
    if (this.replica) this.replica.diskLow = low;
  }

  get diskLow(): boolean {
    return this.#low !== null || this.#stage.type === "full";
  }

  /** May this client have a copy of the whole state? Nobody may while no replica runs. */
  mayReadAll(client: Digest): boolean {
    const stage = this.#stage;
    return stage.type === "replica" && stage.executor.permitsAll(client, this.#parts.clock.wallMs());
  }

  /** What an operator should look at. */
  get alarms(): readonly Alarm[] {
    const stage = this.#stage;
    const alarms: Alarm[] = stage.type === "replica" ? [...stage.replica.alarms] : [];
    if (stage.type === "full")
      alarms.push({ code: "DISK_FULL", detail: "nothing is acknowledged", sinceMs: stage.sinceMs });
    else if (this.#low) alarms.push(this.#low);
    return [...alarms, ...this.#lasting.list];
  }

  /** While nothing is open, as it was last known. */
  async diskUse(): Promise<DiskUse> {
    const stage = this.#stage;
    if (stage.type === "replica" || stage.type === "transfer") this.#diskUse = await stage.storage.diskUse();
    return this.#diskUse;
  }

  /**
   * Ends the replica whose stores are not on the disk any more, as other damage would: what it writes goes nowhere, and an idle one
   * would not notice before it needs a new file.
   */
  async lookAtStores(): Promise<void> {
    const stage = this.#stage;
    if (stage.type !== "replica") return;
    const store = await stage.storage.lost();
    if (store === null || this.#stage !== stage) return;
    const why = `the files of the ${store} store are not where they were opened any more`;
    stage.replica.halt(new QuorateError("STORAGE_DAMAGED", why, { store }));
  }

  /**
   * Opens the directory and runs in the background; resolves when the first stage stands, or the disk is too full for one.
   * @throws QuorateError what an operator must mend: STORAGE_LOCKED, CLUSTER_MISMATCH, STORAGE_FORMAT, STORAGE_UNFOUNDED,
   *   PORT_IN_USE, STORAGE_FAILED
   */
  async start(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      let standing = false;
      this.#stands = () => {
        standing = true;
        resolve();
      };
      this.#loop = this.#run().then(resolve, (error: unknown) => {
        this.#stage = { type: "ended" };
        if (!standing) reject(error);
        else if (!this.#stopping) this.#parts.fatal(error);
      });
    });
  }

  /** A clean stop. */
  async stop(drainMs: number): Promise<void> {
    this.#stopping = true;
    this.#interrupt?.();
    if (this.#stage.type === "replica") await this.#stage.replica.stop(drainMs);
    await this.#loop;
  }

  // ---- one stage after the other

  #open(): Promise<Storage> {
    const { cluster, self, openStorage } = this.#parts;
    return openStorage({ cluster: cluster.id, replica: self, genesis: cluster.genesis });
  }

  /** Takes in what a directory says that was just opened. An ending: no stage can run on it as it is. */
  async #opened(storage: Storage): Promise<Ending | null> {
    const { cluster, self, found } = this.#parts;
    for (const repair of storage.repairs) {
      if (repair.setAside !== null || !this.#condemned.has(repair.store)) this.#report(repair);
    }
    this.#condemned.clear();
    this.#views.load(storage.state);
    const founded = await found?.(storage);
    if (founded === "installed") return { type: "installed" };
    this.#unfounded(founded === "gone");
    if (cluster.view.n > 1 || storage.journal.summary.forgotten === null) return null;
    const why =
      "the journal of the only replica is gone, and nobody else has its data; put the directory back as it was";
    throw new QuorateError("STORAGE_UNFOUNDED", why, { replica: self });
  }

  #report(repair: Repair): void {
    const { store, reason, setAside } = repair;
    this.#lasting.repaired(repair);
    this.#parts.observer.repaired();
    this.#parts.logger.warn({ store, reason, setAside }, `the ${store} store is begun anew`);
  }

  /** What the cluster begins with is not here: the others have it, as a checkpoint once they have executed something. */
  #unfounded(gone: boolean): void {
    if (gone) this.#transferDue = true;
    if (gone && !this.#lasting.unfounded) this.#parts.logger.warn({}, UNFOUNDED);
    this.#lasting.unfounded = gone ? (this.#lasting.unfounded ?? UNFOUNDED) : null;
  }

  #rolledBack(): void {
    this.#older = true;
    const detail = "the data directory is older than a vote of this replica: an old copy, or lost writes of the disk";
    this.#lasting.rolledBack(detail);
    this.#parts.logger.warn({}, `${detail}; it votes when it knows how far`);
  }

  /** That is on disk: a journal opened again says so itself. */
  #remembered(): void {
    this.#older = false;
    this.#parts.logger.info({}, "nothing that this replica had forgotten matters any more");
  }

  async #run(): Promise<void> {
    let storage: Storage | null = null;
    while (!this.#stopping) {
      let ending: Ending | null = null;
      try {
        if (storage === null) {
          storage = await this.#open();
          ending = await this.#opened(storage);
        }
        ending ??= await this.#runStage(storage);
      } catch (error) {
        ending = { type: "failed", error };
      }
      // Nothing holds on to what ran, or the next stage would need room for a second state.
      this.#stage = { type: "opening" };
      if (ending.type !== "failed") this.#older = false;
      storage = await this.#after(ending, storage);
    }
    this.#stage = { type: "ended" };
    await storage?.close();
  }

  /** What comes after a stage: the directory, if it can stay open. */
  async #after(ending: Ending, storage: Storage | null): Promise<Storage | null> {
    switch (ending.type) {
      case "stopped":
        return storage;
      case "view":
        this.#parts.logger.info({ view: this.#views.chain.newest.id }, "the view is over");
        return storage;
      case "retired":
        this.#stopping = true;
        this.#parts.retired();
        return storage;
      case "transfer":
        this.#transferDue = true;
        this.#parts.logger.info({ reason: ending.reason }, "a checkpoint has to be fetched from the other replicas");
        return storage;
      case "installed":
        this.#parts.garbage?.collect();
        return null;
      case "needless":
        this.#needless++;
        await closed(storage);
        // The others have nothing to offer yet: to ask them in a loop would only drown what they log.
        if (this.#lasting.unfounded) await this.#pause(UNFOUNDED_PAUSE_US);
        return null;
      case "repair":
        await this.#condemn(storage, ending.store, ending.reason);
        return null;
      case "failed":
        await this.#recoverFrom(ending.error, storage);
        return null;
      default:
        return assertNever(ending);
    }
  }

  /** @throws what cannot be mended here */
  async #recoverFrom(error: unknown, storage: Storage | null): Promise<void> {
    const code = error instanceof QuorateError ? error.code : null;
    const store = error instanceof QuorateError ? error.detail.store : null;
    if (code === "STORAGE_DAMAGED" && (store === "journal" || store === "state")) {
      await this.#condemn(storage, store, (error as Error).message);
    } else if (code === "STORAGE_DAMAGED" && store === "staging" && storage) {
      await this.#countRepair(error, storage);
      this.#parts.observer.repaired();
      await storage.unstage();
      await storage.close();
    } else if (code === "STORAGE_FULL") {
      if (storage) this.#diskUse = await storage.diskUse().catch(() => this.#diskUse);
      await closed(storage);
      await this.#waitForSpace(error);
    } else {
      await closed(storage);
      throw error;
    }
  }

  async #condemn(storage: Storage | null, store: "journal" | "state", reason: string): Promise<void> {
    await this.#countRepair(new QuorateError("STORAGE_DAMAGED", reason, { store }), storage);
    let setAside: string | null = null;
    try {
      setAside = (await storage?.condemn(store)) ?? null;
    } finally {
      // Where that fails, which ends the process, the cause must be known as well.
      this.#report({ store, reason, setAside });
    }
    this.#condemned.add(store);
  }

  async #countRepair(error: unknown, storage: Storage | null): Promise<void> {
    this.#repairs++;
    if (this.#repairs <= REPAIRS_MAX) return;
    await closed(storage);
    throw error;
  }

  /** Acknowledges nothing while the disk is full. */
  async #waitForSpace(error: unknown): Promise<void> {
    const { clock, logger, hasSpace } = this.#parts;
    this.#stage = { type: "full", sinceMs: clock.wallMs() };
    logger.error({ error: String(error) }, "the disk is full: this replica acknowledges nothing until there is room");
    this.#stands();
    // Where writes fail for a quota there may seem to be room at once: every attempt has its interval.
    do await this.#pause(SPACE_INTERVAL_US);
    while (!this.#stopping && !(await hasSpace()));
    if (!this.#stopping) logger.info({}, "there is room on the disk again");
  }

  /** `stop` ends it early. */
  async #pause(us: number): Promise<void> {
    if (this.#stopping) return;
    const { clock } = this.#parts;
    await new Promise<void>((resolve) => {
      const cancel = clock.at(clock.nowUs() + us, resolve);
      this.#interrupt = () => {
        cancel();
        resolve();
      };
    });
    this.#interrupt = null;
  }

  #runStage(storage: Storage): Promise<Ending> {
    const { journal, state } = storage;
    if (this.#carried) return this.#replicate(storage);
    const due = this.#transferDue || state.applied.instance < journal.base.instance;
    this.#transferDue = false;
    return due ? this.#transfer(storage) : this.#replicate(storage);
  }

  // ---- the stages

  #transfer(storage: Storage): Promise<Ending> {
    const view = this.#views.chain.newest;
    return this.#interruptible((interrupted) =>
      transferStage({
        parts: this.#parts,
        views: this.#views,
        storage,
        peers: this.#peersOf(view),
        interrupted,
        running: (transfer, links) => {
          this.#stage = { type: "transfer", transfer, storage, links };
          this.#stands();
        },
        viewsGrew: () => {
          this.#transferDue = true;
          this.#interrupt?.();
        },
      }),
    );
  }

  /** Runs what `stop` may end early: `interrupted` resolves then. */
  async #interruptible<T>(work: (interrupted: Promise<null>) => Promise<T>): Promise<T> {
    const interrupted = new Promise<null>((resolve) => {
      this.#interrupt = () => resolve(null);
      if (this.#stopping) resolve(null);
    });
    try {
      return await work(interrupted);
    } finally {
      this.#interrupt = null;
    }
  }

  /** Whom links stand to: members of the view, former ones that may not know of it yet, and those invited. */
  #peersOf(view: View): Peers {
    const former = formerMembers(this.#views.chain, view);
    const invited = this.#invitations.at(this.#parts.clock.wallMs()).filter(({ id }) => !memberOf(view, id));
    return { view, others: [...former, ...invited] };
  }

  /** An invitation signed by administrators, to serve a replica that is to become a member; false when it is none. */
  invite(bytes: Uint8Array): boolean {
    const member = this.#invitations.take(bytes, this.#views.chain.newest, this.#parts.clock.wallMs());
    const stage = this.#stage;
    if (member && (stage.type === "replica" || stage.type === "transfer")) stage.links.admit?.(member);
    return member !== null;
  }

  /** The links to this view and those after it, up to a view of which the journal knows; false when stopped before. */
  #fetchLinks(view: View, upTo: number): Promise<boolean> {
    this.#parts.logger.info({ view: upTo }, "asking the other replicas for the links to this view");
    const { openLinks, clock } = this.#parts;
    this.#stands();
    return this.#interruptible((interrupted) =>
      fetchLinks({ openLinks, clock, views: this.#views, view, upTo, interrupted }),
    );
  }

  /** Who once showed that the journal is older than a vote of ours may be gone when it is opened again. */
  async #forgottenIn({ journal }: Storage, known: Forgotten | null): Promise<Forgotten | null> {
    if (!this.#older || known?.until === null) return known;
    const older: Forgotten = { until: null, regency: known?.regency ?? 0 };
    await journal.append([{ type: "forgotten", ...older }]);
    return older;
  }

  /** The executor of the view that just ended, or what the directory holds. */
  async #recovered(storage: Storage): Promise<Recovered> {
    const { crypto, cluster, service } = this.#parts;
    const carried = this.#carried;
    this.#carried = null;
    if (!carried) return recover({ crypto, cluster, storage, service });
    const { executor, forgotten } = carried;
    const { view, applied } = executor;
    const newest = await storage.journal.read(storage.journal.last);
    const { last, regency } = storage.journal.summary;
    const returning = applied.instance <= last ? regenciesIn(view.id, regency) : null;
    const start = startInView({ lastDecided: applied, newest, hear: view.consulted, forgotten, returning });
    return { executor, start, settledFrom: settledFrom(storage.state), replayed: 0 };
  }

  async #replicate(storage: Storage): Promise<Ending> {
    const { self, identityOf, crypto, options, clock, verifier, logger, observer, garbage } = this.#parts;
    const { executor, settledFrom, replayed, ...recovered } = await this.#recovered(storage);
    const { view } = executor;
    const reached = Math.max(view.id, storage.journal.summary.regency.view);
    if (this.#views.chain.newest.id < reached && !(await this.#fetchLinks(view, reached))) return { type: "stopped" };
    await this.#views.store(storage.state);
    if (this.#views.chain.newest.id > view.id + 1 && this.#needless === 0) {
      return { type: "transfer", reason: "the members of this replica's view are not those of the newest one" };
    }
    const cluster: Cluster = { ...this.#parts.cluster, view };
    const known = await this.#forgottenIn(storage, recovered.start.forgotten);
    const forgotten = forgottenFrom(this.#views.chain.firstInstanceOf(view.id), known);
    // A clean stop remembers what was said in its view, which may be a later one than what is left of the state.
    const resend = recovered.start.resend.filter((message) => message.view === view.id);
    const start: Start = { ...recovered.start, forgotten, resend };
    const at = { instance: start.lastDecided.instance, replayed, clean: start.eraseCleanStop };
    logger.info(at, "recovered from the data directory");
    if (forgotten) logger.warn({ ...forgotten }, "the journal was lost: this replica votes when it knows how far");
    const { checkpointPeriod } = this.#parts;
    const replica = new Driver({
      hooks: this.#parts.hooks ?? new RequestHooks({ logger }),
      cluster,
      views: this.#views,
      self,
      identity: identityOf(view),
      crypto,
      storage,
      executor,
      start,
      settledFrom,
      options: this.#needless > 0 ? withoutCheckpoint(options, this.#needless) : options,
      checkpointPeriod,
      clock,
      verifier,
      openIntakeStage: this.#parts.openIntakeStage ?? inThreadStage,
      rolledBack: () => this.#rolledBack(),
      remembered: () => this.#remembered(),
      logger,
      observer,
    });
    this.#parts.incarnated?.(replica, executor);
    replica.diskLow = this.#low !== null;
    let links: Links | null = null;
    let gateway: Gateway | null = null;
    try {
      links = await this.#parts.openLinks(
        {
          onMessage: (from, payload) => {
            if (replica.core.behind) garbage?.passed(payload.length);
            replica.onMessage(from, payload);
          },
          onConnected: (peer) => replica.onConnected(peer),
          onDisconnected: () => undefined,
        },
        this.#peersOf(view),
      );
      gateway = await this.#parts.openGateway(
        {
          admits: (client) => replica.admits(client),
          onAuthenticated: (connection, keys) => replica.authenticity.learn(connection.client, keys),
          onRequest: (connection, envelope, request) => replica.onRequest(connection, envelope, request),
        },
        view,
      );
      if (this.#stopping) return { type: "stopped" };
      this.#stage = { type: "replica", replica, executor, storage, links, gateway };
      replica.run(links, gateway);
      this.#stands();
      if (isFormer(this.#views.chain, view, self)) retireWhenDone(replica, view, clock);
      const ending = await replica.ended;
      if (ending.type === "view") {
        const { forgotten: before } = replica.core;
        const forgotten = forgottenAfter(executor.applied.instance, before);
        if (before && !forgotten) await storage.journal.append([{ type: "remembered" }]);
        this.#carried = { executor, forgotten };
      }
      return ending;
    } finally {
      await gateway?.close();
      await links?.close();
      await replica.intake.close();
    }
  }
}

/** Closing what has failed may fail as well; what matters has been said. */
async function closed(storage: Storage | null): Promise<void> {
  try {
    await storage?.close();
  } catch {
    // The directory is opened anew, or the process ends.
  }
}

/** To go back and forth between log and transfer would keep members from the synchronization phase that they may need to go on. */
function withoutCheckpoint(options: ConsensusOptions, times: number): ConsensusOptions {
  const outOfReachMs = Math.min(OUT_OF_REACH_MS_MAX, OUT_OF_REACH_MS * 2 ** (times - 1));
  return { ...options, emptyLagMax: Number.POSITIVE_INFINITY, outOfReachMs };
}
