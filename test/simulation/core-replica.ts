/**
 * One replica of a core cluster: a real core, what it has under way, and the disk that survives it. Booting follows
 * server/recover.ts: what is on disk says where the core stands, and only records whose certificate verifies count as
 * accepted.
 */
import { decodeBatch } from "../../protocol/batch.ts";
import { bytesOf, type Digest, latin1, utf8 } from "../../protocol/bytes.ts";
import { certificateChecks } from "../../protocol/certificate.ts";
import { encodeEnvelope, type Request } from "../../protocol/request.ts";
import { faultsTolerated, type Mode, type View, viewOf } from "../../protocol/view.ts";
import type { Authentication, CoreRecord, JournaledInstance } from "../../server/consensus/contract.ts";
import { decidedInstance, type Forgotten, type Position, startOf } from "../../server/consensus/restart.ts";
import { Core } from "../../server/core.ts";
import { fastCrypto, fastPublicKey } from "./fast-crypto.ts";

export const CLUSTER = latin1(new Uint8Array(32).fill(7)) as Digest;
export const GENESIS = fastCrypto.sha256(utf8("genesis"));
export const CLIENT = fastCrypto.sha256(utf8("client"));
/** Has every third request. */
export const SECOND_CLIENT = fastCrypto.sha256(utf8("second client"));

/** Any well-formed envelope: whether it is good is decided by the `authentic` hook. */
export const ENVELOPE = encodeEnvelope({
  view: 0,
  replier: 0,
  keys: null,
  authenticator: { type: "vector", macs: "0123456789abcdef" },
});

export function seedOf(id: number): Uint8Array {
  return bytesOf(fastCrypto.sha256(utf8(`replica ${id}`)));
}

export function signerOf(id: number): (data: Uint8Array) => Uint8Array {
  return fastCrypto.signer(seedOf(id));
}

/**
 * n members; f of them may lie (in cft mode: crash), or as many as n allows; leaders that take turns have `rotation` instances
 * each.
 */
export function coreView(n: number, f?: number, mode: Mode = "bft", rotation = 0): View {
  const members = Array.from({ length: n }, (_, id) => ({
    id,
    signKey: fastPublicKey(seedOf(id)),
    boxKey: new Uint8Array(32),
    host: "h",
    clientPort: 1,
    peerPort: 2,
    adminPort: 3,
  }));
  const faults = f ?? faultsTolerated({ n, mode });
  return viewOf(fastCrypto, { id: 0, cluster: CLUSTER, mode, f: faults, members, administrators: [], rotation });
}

interface Pending {
  readonly ticket: number;
  readonly records: readonly CoreRecord[];
}

/** What survives a crash. */
export interface Disk {
  readonly instances: Map<number, JournaledInstance>;
  regency: number;
  wanted: number;
  cleanStop: readonly Uint8Array[] | null;
  forgotten: Forgotten | null;
  /** The state came with a checkpoint of this instance: what lies below it was never in this journal. */
  readonly installed: Position | null;
}

/** A founded disk: like one after a clean stop that had nothing to remember. */
export function emptyDisk(): Disk {
  return { instances: new Map(), regency: 0, wanted: 0, cleanStop: [], forgotten: null, installed: null };
}

export function copyOfDisk(disk: Disk): Disk {
  return { ...disk, instances: new Map(disk.instances) };
}

export interface SimulatedReplica {
  /** The member it plays. */
  readonly id: number;
  /** Its place in the cluster: the id, but for the second one of twins. */
  readonly slot: number;
  core: Core;
  up: boolean;
  readonly disk: Disk;
  /** Synced writes under way, in order. */
  journaling: Pending[];
  verifying: { ticket: number; valid: boolean[] }[];
  toExecute: { instance: number; digest: Digest; timestampMs: number; requests: readonly Request[] }[];
  durableUpTo: number;
  executedUpTo: number;
  /** What its client table would show as executed: the keys of requests. */
  readonly executedKeys: Set<string>;
  /** Clients whose requests must be signed here. */
  readonly demoted: Set<Digest>;
  /** How far its wall clock is ahead. */
  skewMs: number;
}

export interface BootOptions {
  readonly view: View;
  readonly id: number;
  readonly slot: number;
  readonly disk: Disk;
  readonly authenticate: (request: Request, envelope: Uint8Array) => Authentication;
  readonly requestTimeoutMs: number;
  /** How many others must say what they remember of it. */
  readonly hear: number;
}

function isCertified(view: View, { certificate }: JournaledInstance): boolean {
  const checks = certificate && certificateChecks(view, certificate);
  return checks?.every((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
}

/** A process on this disk, as far as a core goes. */
export function boot({ view, id, slot, disk, authenticate, requestTimeoutMs, hear }: BootOptions): SimulatedReplica {
  const last = Math.max(0, ...disk.instances.keys());
  const newest = disk.instances.get(last) ?? null;
  const base = disk.installed ?? { instance: 0, digest: GENESIS, timestampMs: 0 };
  const decided = decidedInstance({ applied: base.instance, newest });
  const at = disk.instances.get(decided);
  const executedKeys = new Set<string>();
  let { timestampMs } = base;
  for (let instance = base.instance + 1; instance <= decided; instance++) {
    const record = disk.instances.get(instance);
    if (!record) throw new Error(`the journal of replica ${id} lacks instance ${instance}`);
    const batch = decodeBatch(fastCrypto, record.batch);
    for (const request of batch.requests) executedKeys.add(request.key);
    timestampMs = batch.timestampMs;
  }
  const accepted = [...disk.instances.values()]
    .filter((record) => isCertified(view, record))
    .sort((a, b) => b.instance - a.instance);
  const start = startOf(
    {
      regency: disk.regency,
      wanted: disk.wanted,
      newest,
      newestAccepted: accepted[0] ?? null,
      lastRecord: at ?? null,
      cleanStop: disk.cleanStop,
      base: base.instance,
      forgotten: disk.forgotten,
      keptCertificate: null,
      hear,
    },
    { instance: decided, digest: at?.digest ?? base.digest, timestampMs },
  );
  const core = new Core(
    {
      view,
      self: id,
      crypto: fastCrypto,
      signer: signerOf(id),
      authenticate,
      settled: (request) => executedKeys.has(request.key),
      firstInstance: 1,
      viewAt: () => view,
      options: {
        batchRequestsMax: 8,
        batchBytesMax: 1_000_000,
        batchWaitUs: 1_000,
        clockDriftMs: 5_000,
        requestTimeoutMs,
        statusIntervalMs: 250,
        executionLagMax: 16,
        emptyLagMax: Number.POSITIVE_INFINITY,
      },
    },
    start,
  );
  return {
    id,
    slot,
    core,
    up: true,
    disk,
    journaling: [],
    verifying: [],
    toExecute: [],
    durableUpTo: decided,
    executedUpTo: decided,
    executedKeys,
    demoted: new Set(),
    skewMs: 0,
  };
}
