/**
 * What makes a snapshot file believable (docs/snapshot-format.md; docs/protocol.md section 6): the chunks are those of the
 * header's root, the log that follows is proven by certificates and executed on them, and on that way the signed roots of W
 * distinct members are reproduced, one of whom is correct. The state that is believed is the one at the end of the log:
 * that at its beginning is vouched for only by who gave it.
 */
import { decodeBatch } from "../../protocol/batch.ts";
import { type Digest, hex, textOf } from "../../protocol/bytes.ts";
import {
  type Cluster,
  type ClusterFile,
  type ClusterOrigin,
  clusterOf,
  parseClusterFile,
  shortId,
} from "../../protocol/cluster.ts";
import { decode } from "../../protocol/codec.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection, QuorateError } from "../../protocol/errors.ts";
import {
  type ChunkSummary,
  decodeChunk,
  decodeManifest,
  type ImageHeader,
  rootOf,
  rootStatement,
} from "../../protocol/image.ts";
import { decodeMessage, imageHeaderSchema } from "../../protocol/messages.ts";
import { memberOf } from "../../protocol/view.ts";
import { followed, ViewChain } from "../../protocol/view-chain.ts";
import { Executor, foundingOf } from "../service/executor.ts";
import { kvService } from "../service/kv-service.ts";
import { SERVICE_SPACE } from "../service/state.ts";
import { type RootOfMember, rootsSchema, SnapshotReader, snapshotInvalid } from "./file.ts";
import { provenBatches } from "./history-proof.ts";
import { ScratchState } from "./scratch-state.ts";

export interface SnapshotOptions {
  readonly file: string;
  readonly crypto: Crypto;
  /** The cluster that must have taken it; null: the one whose file is embedded, so that trust rests on the snapshot. */
  readonly clusterFile: ClusterFile | null;
  /** Where a temporary directory may be made; it holds the state while it is verified. */
  readonly scratchParent: string;
  readonly onProgress?: (progress: { readonly bytes: number; readonly bytesTotal: number }) => void;
}

export interface RootHolder {
  readonly replica: number;
  readonly instance: number;
}

/** What a valid snapshot holds. */
export interface SnapshotSummary {
  readonly clusterFile: ClusterFile;
  /** Where its state stands, after the log in it. */
  readonly instance: number;
  readonly root: Digest;
  readonly timestampMs: number;
  readonly revision: number;
  /** Keys of the store. */
  readonly entries: number;
  /** Of the state with its client table. */
  readonly bytes: number;
  /** The instance of the checkpoint that it begins with. */
  readonly checkpoint: number;
  /** Whose signed roots were reproduced, and whose were not. */
  readonly signedBy: readonly RootHolder[];
  readonly contradictedBy: readonly RootHolder[];
  /** SHA-256 of the file. */
  readonly sha256: Uint8Array;
}

export interface VerifiedSnapshot {
  readonly summary: SnapshotSummary;
  /** To be closed. */
  readonly state: ScratchState;
}

/** @throws QuorateError SNAPSHOT_INVALID with what is wrong; `detail.foreign`: the entries are those of another service */
export async function verifySnapshot(options: SnapshotOptions): Promise<VerifiedSnapshot> {
  const reader = await SnapshotReader.open(options.file);
  try {
    const frame = await readFrame(reader, options);
    const state = await ScratchState.open(options.scratchParent);
    try {
      const summary = await new Replay(options, frame, state).run(reader);
      return { summary, state };
    } catch (error) {
      await state.close();
      throw error;
    }
  } catch (cause) {
    if (cause instanceof QuorateError && cause.code === "SNAPSHOT_INVALID") {
      throw new QuorateError("SNAPSHOT_INVALID", `snapshot ${options.file}: ${cause.message}`, cause.detail, cause);
    }
    throw cause;
  } finally {
    await reader.close();
  }
}

/** Everything in the file but the chunks and the log, checked as far as it goes alone. */
interface Frame {
  readonly clusterFile: ClusterFile;
  readonly cluster: Cluster;
  /** From the cluster's first view to the one whose members signed the roots. */
  readonly chain: ViewChain;
  readonly header: ImageHeader;
  readonly root: Digest;
  readonly manifest: readonly ChunkSummary[];
  readonly roots: readonly RootOfMember[];
  readonly sha256: Uint8Array;
}

function orInvalid<T>(what: string, decode: () => T): T {
  const value = decoded(decode);
  if (isRejection(value)) throw snapshotInvalid(`its ${what} is malformed (${value.code})`);
  return value;
}

/** Reads the whole file once: it is complete and as it was written. */
async function readFrame(reader: SnapshotReader, options: SnapshotOptions): Promise<Frame> {
  const { crypto } = options;
  const found = new Map<string, Uint8Array>();
  const links: Uint8Array[] = [];
  const records = reader.records();
  let next = await records.next();
  for (; !next.done; next = await records.next()) {
    const { kind, bytes } = next.value;
    if (kind === "link") links.push(bytes);
    else if (kind !== "chunk" && kind !== "history") found.set(kind, bytes);
  }
  const part = (kind: string): Uint8Array => found.get(kind) as Uint8Array;
  const { clusterFile, cluster } = clusterIn(part("cluster"), options);
  const chain = followed(crypto, ViewChain.of(cluster.view), links);
  if (isRejection(chain)) throw snapshotInvalid("its links do not lead from view to view");
  const header = orInvalid("header", () => decode(imageHeaderSchema, part("header")));
  const manifest = orInvalid("manifest", () => decodeManifest(part("manifest")));
  const bytes = manifest.reduce((sum, chunk) => sum + chunk.bytes, 0);
  if (
    crypto.sha256(part("manifest")) !== header.manifest ||
    manifest.length !== header.chunks ||
    bytes !== header.bytes
  ) {
    throw snapshotInvalid("its manifest is not that of its header");
  }
  const roots = orInvalid("list of roots", () => decode(rootsSchema, part("roots")));
  const view = chain.newest;
  for (const { replica, instance, root, signature } of roots) {
    const member = memberOf(view, replica);
    if (!member) throw snapshotInvalid(`it names a root of replica ${replica}, which is no member of view ${view.id}`);
    const statement = rootStatement(cluster.id, { view: view.id, instance, root });
    if (!crypto.verify(member.signKey, statement, signature)) {
      throw snapshotInvalid(`the signature of replica ${replica} on its root at instance ${instance} is wrong`);
    }
  }
  const root = rootOf(crypto, cluster.view, header);
  return { clusterFile, cluster, chain, header, root, manifest, roots, sha256: next.value };
}

function clusterIn(bytes: Uint8Array, options: SnapshotOptions): { clusterFile: ClusterFile; cluster: Cluster } {
  const embedded = textOf(bytes);
  if (embedded === null) throw snapshotInvalid("its cluster file is malformed");
  try {
    const clusterFile = parseClusterFile(embedded, "its cluster file");
    const cluster = clusterOf(options.crypto, clusterFile);
    if (!options.clusterFile) return { clusterFile, cluster };
    const expected = clusterOf(options.crypto, options.clusterFile);
    if (expected.genesis !== cluster.genesis) {
      throw snapshotInvalid(
        `it is of cluster ${shortId(cluster.id)}, not of ${shortId(expected.id)} as it was founded`,
      );
    }
    return { clusterFile: options.clusterFile, cluster: expected };
  } catch (cause) {
    if (cause instanceof QuorateError && cause.code === "CONFIG_INVALID") throw snapshotInvalid(cause.message, cause);
    throw cause;
  }
}

/** The second reading: chunks into the scratch state, the log on top of them, roots compared on the way. */
class Replay {
  readonly #options: SnapshotOptions;
  readonly #frame: Frame;
  readonly #state: ScratchState;
  readonly #executor: Executor;
  readonly #rootInstances: ReadonlySet<number>;
  readonly #signedBy = new Map<number, number>();
  readonly #contradictedBy = new Map<number, number>();
  #header: ImageHeader;
  #chunks = 0;
  #lastKey = "";
  #bytes = 0;

  constructor(options: SnapshotOptions, frame: Frame, state: ScratchState) {
    const { cluster, header, roots } = frame;
    this.#options = options;
    this.#frame = frame;
    this.#state = state;
    this.#header = header;
    this.#rootInstances = new Set(roots.map((root) => root.instance));
    const { instance, digest, timestampMs } = header;
    this.#executor = new Executor({
      crypto: options.crypto,
      ...foundingOf(cluster),
      stored: state,
      applied: { instance, digest, timestampMs },
      service: kvService,
    });
  }

  async run(reader: SnapshotReader): Promise<SnapshotSummary> {
    for await (const { kind, bytes } of reader.records()) {
      if (kind === "chunk") await this.#chunk(bytes);
      else if (kind === "history") await this.#segment(bytes);
      this.#bytes += bytes.length;
      this.#options.onProgress?.({ bytes: this.#bytes, bytesTotal: this.#frame.header.bytes });
    }
    this.#requireAllChunks();
    this.#compare(this.#frame.header.instance, this.#frame.root);
    if (this.#header.instance !== this.#executor.applied.instance) await this.#flush();
    return this.#judged();
  }

  async #chunk(bytes: Uint8Array): Promise<void> {
    const { manifest } = this.#frame;
    const index = this.#chunks++;
    const place = `chunk ${index + 1} of ${manifest.length}`;
    if (this.#options.crypto.sha256(bytes) !== manifest[index]?.digest) {
      throw snapshotInvalid(`${place} is not the one its manifest names`);
    }
    const entries = orInvalid(place, () => decodeChunk(bytes));
    if (index > 0 && (entries[0]?.[0] ?? "") <= this.#lastKey) throw snapshotInvalid(`${place} is out of order`);
    this.#lastKey = entries.at(-1)?.[0] ?? "";
    await this.#state.write(entries);
    for (const entry of entries) this.#load(place, entry);
  }

  #load(place: string, [key, value]: readonly [key: string, value: Uint8Array]): void {
    try {
      this.#executor.load(key, value);
    } catch (cause) {
      const foreign = key.startsWith(SERVICE_SPACE);
      const what = foreign ? "that is of no key-value store" : "that no replica writes";
      throw new QuorateError("SNAPSHOT_INVALID", `${place} holds an entry ${what}`, { foreign }, cause);
    }
  }

  #requireAllChunks(): void {
    const { manifest } = this.#frame;
    if (this.#chunks !== manifest.length) {
      throw snapshotInvalid(`it holds ${this.#chunks} of ${manifest.length} chunks`);
    }
  }

  async #segment(bytes: Uint8Array): Promise<void> {
    this.#requireAllChunks();
    const { crypto } = this.#options;
    const message = decodeMessage(bytes);
    const applied = this.#executor.applied;
    const from = applied.instance + 1;
    if (
      isRejection(message) ||
      message.type !== "HISTORY" ||
      message.from !== from ||
      message.previous !== applied.digest
    ) {
      throw snapshotInvalid(`its log does not go on at instance ${from}`);
    }
    const proven = provenBatches(crypto, this.#frame.chain, message);
    if (proven.length !== message.batches.length || proven.length === 0) {
      throw snapshotInvalid(`its log from instance ${from} on is not certified`);
    }
    for (const { instance, digest, bytes: batchBytes } of proven) {
      const batch = orInvalid(`batch of instance ${instance}`, () => decodeBatch(crypto, batchBytes));
      if (batch.instance !== instance || batch.timestampMs < this.#executor.applied.timestampMs) {
        throw snapshotInvalid(`the batch of instance ${instance} is none that a replica executes`);
      }
      this.#executor.execute(batch, digest);
      if (!this.#rootInstances.has(instance)) continue;
      await this.#flush();
      this.#compare(instance, rootOf(crypto, this.#frame.cluster.view, this.#header));
    }
    await this.#write();
  }

  async #write(): Promise<void> {
    const group = this.#executor.takeGroup();
    if (!group) return;
    await this.#state.write(group.changes);
    this.#executor.groupDurable();
  }

  async #flush(): Promise<void> {
    await this.#write();
    this.#header = await this.#state.header(this.#options.crypto, this.#executor.applied);
  }

  #compare(instance: number, root: Digest): void {
    for (const signed of this.#frame.roots) {
      if (signed.instance !== instance) continue;
      const matches = signed.root === root ? this.#signedBy : this.#contradictedBy;
      matches.set(signed.replica, instance);
    }
  }

  async #judged(): Promise<SnapshotSummary> {
    const { cluster, chain, clusterFile, header, sha256 } = this.#frame;
    const { weakQuorum } = chain.newest;
    const signedBy = holders(this.#signedBy);
    const contradictedBy = holders(this.#contradictedBy);
    if (signedBy.length < weakQuorum) {
      const why = `its state is vouched for by ${signedBy.length} of the ${weakQuorum} members it takes`;
      const other = contradictedBy.map(({ replica, instance }) => `replica ${replica} signed another at ${instance}`);
      throw snapshotInvalid([why, ...other].join("; "));
    }
    let entries = 0;
    for await (const [key] of this.#state.entries()) if (isEntryKey(key)) entries += 1;
    return {
      clusterFile,
      instance: this.#header.instance,
      root: rootOf(this.#options.crypto, cluster.view, this.#header),
      timestampMs: this.#header.timestampMs,
      revision: this.#executor.revision,
      entries,
      bytes: this.#header.bytes,
      checkpoint: header.instance,
      signedBy,
      contradictedBy,
      sha256,
    };
  }
}

function holders(instances: ReadonlyMap<number, number>): RootHolder[] {
  const all = [...instances].map(([replica, instance]) => ({ replica, instance }));
  return all.sort((a, b) => a.replica - b.replica);
}

/** Of the service's space the empty key holds the store revision (server/service/kv-service.ts), the others are entries. */
export const REVISION_KEY = SERVICE_SPACE;

export function isEntryKey(key: string): boolean {
  return key.startsWith(SERVICE_SPACE) && key !== REVISION_KEY;
}

/** Is this the snapshot that an origin names? */
export function isOrigin(summary: SnapshotSummary, origin: ClusterOrigin): boolean {
  const same = summary.instance === origin.instance && hex(summary.root) === origin.root;
  return same && hex(summary.sha256) === origin.snapshot && summary.clusterFile.clusterId === origin.clusterId;
}
