/**
 * What worker threads do for the intake: recorded requests, signed ones of 1 KiB, MACed ones of 1 KiB and of 64 KiB, into the real
 * intake and its stage in one process, without network and consensus around it, with workers 0, 1 and 2 in turn. What counts is CPU
 * of the main thread per request, because that thread orders; how long a check of two consensus signatures takes meanwhile; and that
 * the process needs no more CPU than before. (Requests per second depend on what else runs: the thread pool has four threads.)
 *
 *   npm run bench:intake -- --signed 6000 --maced 40000 --large 2000 --rounds 5
 */
import { readFileSync } from "node:fs";
import { tableText } from "../../cli/text.ts";
import { Credentials } from "../../client/credentials.ts";
import { newIdentity } from "../../client/index.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import type { Identity } from "../../protocol/identity.ts";
import { encodeEnvelope, encodeRequest, macAt } from "../../protocol/request.ts";
import { viewOf } from "../../protocol/view.ts";
import { Authenticity } from "../../server/authenticity.ts";
import type { SignatureCheck } from "../../server/consensus/contract.ts";
import { Intake } from "../../server/intake.ts";
import { inThreadStage } from "../../server/intake-stage/in-thread.ts";
import { workerStage } from "../../server/intake-stage/worker-stage.ts";
import type { ClientConnection } from "../../server/network/contract.ts";
import { threadPoolVerifier } from "../../server/verifier.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";

const MINUTES_MAX = 10;
const REPLICAS = 4;
const SELF = 1;
const CLIENTS = 32;
const COMMAND_BYTES = { signed: 1_024, maced: 1_024, large: 64 * 1_024 } as const;
/** What a busy socket poll brings in one turn of the event loop. */
const FRAMES_PER_TURN = 32;
/** Sent and not admitted yet, of all clients together. */
const WINDOW = 512;
/** A replica checks the signatures of an instance about so often under load. */
const CONSENSUS_EVERY_MS = 5;
const WORKERS = [0, 1, 2] as const;

type Load = "signed" | "maced" | "large";

interface Frame {
  readonly connection: ClientConnection;
  readonly envelope: Uint8Array;
  readonly request: Uint8Array;
}

interface Round {
  readonly perSecond: number;
  /** CPU of the main thread, and of all threads, per request. */
  readonly mainUs: number;
  readonly allUs: number;
  /** Share of the time in which the main thread was on a CPU. */
  readonly mainShare: number;
  readonly checkMs: readonly number[];
}

/** Who is served: a cluster of four that nobody runs. */
class Setting {
  readonly replicas: readonly Identity[] = Array.from({ length: REPLICAS }, () => newIdentity());
  readonly cluster: Cluster;
  readonly clients: { readonly credentials: Credentials; readonly connection: ClientConnection }[];
  readonly consensusChecks: readonly SignatureCheck[];

  constructor() {
    const id = nodeCrypto.sha256(nodeCrypto.random(32));
    const at = { host: "localhost", clientPort: 1, peerPort: 2, adminPort: 3 };
    const members = this.replicas.map(({ signKey, boxKey }, member) => ({ id: member, signKey, boxKey, ...at }));
    const view = viewOf(nodeCrypto, { id: 0, cluster: id, mode: "bft", f: 1, members, administrators: [] });
    this.cluster = {
      id,
      view,
      genesis: id,
      clients: "open",
      signedRequests: false,
      maxClients: CLIENTS,
      origin: null,
    };
    this.clients = Array.from({ length: CLIENTS }, (_, index) => {
      const credentials = new Credentials(nodeCrypto, this.cluster, newIdentity());
      return { credentials, connection: connectionOf(index, credentials.client) };
    });
    this.consensusChecks = this.replicas.slice(2).map(({ signSeed, signKey }) => {
      const statement = nodeCrypto.random(120);
      return { publicKey: signKey, statement, signature: nodeCrypto.signer(signSeed)(statement) };
    });
  }

  /** What clients would send, ready to be fed again and again. */
  record(load: Load, count: number): Frame[] {
    return Array.from({ length: count }, (_, index) => {
      const { credentials, connection } = this.clients[index % CLIENTS] as (typeof this.clients)[number];
      const request = encodeRequest({
        cluster: this.cluster.id,
        client: credentials.client,
        session: connection.session,
        sequence: index + 1,
        ackedBelow: 1,
        kind: "ordered",
        deadlineMs: 0,
        commands: [nodeCrypto.random(COMMAND_BYTES[load])],
      });
      const { macs, signature } = credentials.prove(nodeCrypto.sha256(request), load === "signed");
      const authenticator = signature
        ? ({ type: "signature", signature, mac: macAt(macs, SELF) } as const)
        : ({ type: "vector", macs } as const);
      return { connection, request, envelope: encodeEnvelope({ view: 0, replier: SELF, keys: null, authenticator }) };
    });
  }
}

function connectionOf(id: number, client: Digest): ClientConnection {
  return {
    id,
    client,
    session: 1,
    send: () => true,
    together: null,
    turnedAway: () => {},
    close: (_code, reason) => {
      throw new Error(`a recorded request was refused: ${reason}`);
    },
  };
}

/** CPU of this process's main thread so far, in microseconds; Linux says so by thread. */
function mainCpuUs(): number {
  const [onCpuNs] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, "latin1").split(" ");
  return Number(onCpuNs) / 1_000;
}

class Feed {
  readonly #setting: Setting;
  readonly #intake: Intake;
  #frames: readonly Frame[] = [];
  #next = 0;
  #admitted = 0;
  #due = false;
  #done: () => void = () => undefined;
  #failed: (error: Error) => void = () => undefined;

  constructor(setting: Setting, workers: number) {
    this.#setting = setting;
    const { cluster, replicas } = setting;
    const identity = replicas[SELF] as Identity;
    const grants = { keysOf: () => null, knows: () => true };
    const authenticity = new Authenticity({ crypto: nodeCrypto, cluster, self: SELF, identity, known: grants });
    for (const { credentials } of setting.clients) authenticity.learn(credentials.client, credentials.publicKeys);
    const refuse = (what: string): never => {
      throw new Error(`a recorded request was not admitted: ${what}`);
    };
    this.#intake = new Intake({
      crypto: nodeCrypto,
      cluster,
      self: SELF,
      authenticity,
      verifier: threadPoolVerifier,
      openStage: workers === 0 ? inThreadStage : workerStage({ workers, boxSecret: identity.boxSecret }),
      port: {
        accepting: () => true,
        behind: () => false,
        answersReads: () => false,
        permits: () => true,
        lookup: () => null,
        leaves: () => true,
        refusal: () => null,
        query: () => null,
        refusesGrowth: () => false,
        queue: { room: () => true, askedAgain: () => false },
        clock: { nowUs: () => 0, wallMs: () => 0 },
        turnDue: () => undefined,
        administered: () => true,
        submit: () => this.#admit(),
        misbehaved: (_client, code) => refuse(code),
        guard: (work) => work(),
        failed: (error) => this.#failed(error),
      },
    });
  }

  /** Feeds all frames once; resolves when the last one is admitted. */
  run(frames: readonly Frame[]): Promise<void> {
    this.#frames = frames;
    this.#next = 0;
    this.#admitted = 0;
    this.#schedule();
    return new Promise((resolve, reject) => {
      this.#done = resolve;
      this.#failed = reject;
    });
  }

  /** Twice: for the intake alone, and for how long consensus waits meanwhile, which costs CPU as well. */
  async measure(frames: readonly Frame[]): Promise<Round> {
    const [startedMs, cpuUs, all] = [performance.now(), mainCpuUs(), process.cpuUsage()];
    await this.run(frames);
    const [tookMs, usedUs, { user, system }] = [
      performance.now() - startedMs,
      mainCpuUs() - cpuUs,
      process.cpuUsage(all),
    ];
    const checkMs: number[] = [];
    const consensus = setInterval(() => {
      const since = performance.now();
      threadPoolVerifier(this.#setting.consensusChecks, () => checkMs.push(performance.now() - since));
    }, CONSENSUS_EVERY_MS);
    await this.run(frames);
    clearInterval(consensus);
    return {
      perSecond: (frames.length / tookMs) * 1_000,
      mainUs: usedUs / frames.length,
      allUs: (user + system) / frames.length,
      mainShare: usedUs / 1_000 / tookMs,
      checkMs,
    };
  }

  close(): Promise<void> {
    return this.#intake.close();
  }

  #schedule(): void {
    if (this.#due) return;
    this.#due = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#due = false;
    const until = Math.min(this.#frames.length, this.#next + FRAMES_PER_TURN);
    while (this.#next < until && this.#next - this.#admitted < WINDOW) {
      const { connection, envelope, request } = this.#frames[this.#next++] as Frame;
      this.#intake.receive(connection, envelope, request);
    }
    if (this.#next < this.#frames.length && this.#next - this.#admitted < WINDOW) this.#schedule();
  };

  #admit(): void {
    this.#admitted++;
    if (this.#admitted === this.#frames.length) this.#done();
    else if (this.#next < this.#frames.length) this.#schedule();
  }
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Medians over rounds; of the consensus checks, all of them together. */
interface Summary {
  readonly workers: number;
  readonly perSecond: number;
  readonly mainUs: number;
  readonly allUs: number;
  readonly mainShare: number;
  readonly checkP50Ms: number;
  readonly checkP99Ms: number;
}

function summaryOf(workers: number, rounds: readonly Round[]): Summary {
  const median = (of: (round: Round) => number): number => quantile(rounds.map(of), 0.5);
  const checks = rounds.flatMap(({ checkMs }) => checkMs);
  return {
    workers,
    perSecond: median((round) => round.perSecond),
    mainUs: median((round) => round.mainUs),
    allUs: median((round) => round.allUs),
    mainShare: median((round) => round.mainShare),
    checkP50Ms: quantile(checks, 0.5),
    checkP99Ms: quantile(checks, 0.99),
  };
}

/** Alternates, so that a machine that slows down slows everybody down. */
async function compare(setting: Setting, frames: readonly Frame[], rounds: number): Promise<Summary[]> {
  const feeds = WORKERS.map((workers) => ({ workers, feed: new Feed(setting, workers), rounds: [] as Round[] }));
  for (const { feed } of feeds) await feed.run(frames.slice(0, Math.ceil(frames.length / 2)));
  for (let round = 0; round < rounds; round++) {
    for (const each of feeds) each.rounds.push(await each.feed.measure(frames));
  }
  for (const { feed } of feeds) await feed.close();
  return feeds.map((each) => summaryOf(each.workers, each.rounds));
}

function print(load: Load, summaries: readonly Summary[]): void {
  const [alone] = summaries as [Summary];
  const rows = summaries.map((each) => [
    String(each.workers),
    each.perSecond.toFixed(0),
    (each.perSecond / alone.perSecond).toFixed(2),
    `${each.mainUs.toFixed(1)} us`,
    (each.mainUs / alone.mainUs).toFixed(2),
    `${each.allUs.toFixed(0)} us`,
    (each.allUs / alone.allUs).toFixed(2),
    `${(each.mainShare * 100).toFixed(0)} %`,
    `${each.checkP50Ms.toFixed(1)} / ${each.checkP99Ms.toFixed(1)} ms`,
  ]);
  const head = [
    "WORKERS",
    "REQUESTS/S",
    "RATIO",
    "MAIN CPU/REQUEST",
    "RATIO",
    "ALL CPU/REQUEST",
    "RATIO",
    "MAIN CPU",
    "CHECK P50/P99",
  ];
  process.stdout.write(`\n${load} requests\n${tableText(head, rows)}`);
}

/** Ratios to what the event loop needs alone. */
const REQUIRED: Readonly<Record<Load, { mainMax: number; allMax: number; checkMax: number | null }>> = {
  // Relieved, and consensus no longer waits behind clients.
  signed: { mainMax: 0.8, allMax: 1.2, checkMax: 0.25 },
  // Judged in place: as before.
  maced: { mainMax: 1.25, allMax: 1.25, checkMax: null },
  large: { mainMax: 0.95, allMax: 1.5, checkMax: null },
};

function judge(findings: Findings, load: Load, [alone, ...others]: readonly Summary[]): void {
  if (!alone) return;
  const { mainMax, allMax, checkMax } = REQUIRED[load];
  const within = (what: string, ratio: number, max: number): void =>
    findings.require(what, `<= ${max}`, ratio.toFixed(2), ratio <= max);
  for (const each of others) {
    const who = `${load}, ${each.workers} ${each.workers === 1 ? "worker" : "workers"}`;
    within(`${who}: main thread CPU per request`, each.mainUs / alone.mainUs, mainMax);
    within(`${who}: CPU per request`, each.allUs / alone.allUs, allMax);
    if (checkMax !== null) within(`${who}: median consensus check`, each.checkP50Ms / alone.checkP50Ms, checkMax);
    findings.note(`${who}: requests per second`, (each.perSecond / alone.perSecond).toFixed(2));
  }
}

async function main(): Promise<void> {
  const options = numbersFrom({ signed: 6_000, maced: 40_000, large: 2_000, rounds: 5 });
  const setting = new Setting();
  const findings = new Findings();
  for (const load of ["signed", "maced", "large"] as const) {
    const summaries = await compare(setting, setting.record(load, options[load]), options.rounds);
    if (!options.json) print(load, summaries);
    judge(findings, load, summaries);
  }
  conclude(findings, options.json);
}

await evaluate("intake", MINUTES_MAX, main);
