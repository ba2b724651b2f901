/**
 * Fetches one checkpoint from its donor (docs/protocol.md section 6): the manifest, checked against the header that was
 * offered, then the chunks that are not staged yet, each checked against the manifest before anything is done with it.
 *
 * Invariants: 1. only what was verified is staged. 2. a bounded number of chunks is asked for, arrived or being written at
 * any time. 3. chunks are known by digest: those of an earlier donor, or of an earlier start, are not fetched again.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import { type ChunkSummary, decodeChunk, decodeManifest, type ImageHeader } from "../../protocol/image.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { TransferPort, VerifiedChunk } from "./transfer-contract.ts";

/** Chunks asked for and not here yet. */
const ASKED_MAX = 8;
/** Bytes that arrived and are not on disk yet before no more is asked for. */
const UNSTAGED_BYTES_MAX = 8 * 1024 * 1024;
/** Chunks are written together once they have so many bytes. */
const STAGE_BYTES = 4 * 1024 * 1024;
/** An unanswered request is repeated. */
const REPEAT_US = 2_000_000;
/** A donor that delivers nothing for so long has stalled. */
const STALL_US = 5_000_000;
/** Fewer bytes in such a time are too few while another donor could be tried. */
const SLOW_WINDOW_US = 60_000_000;
const SLOW_WINDOW_BYTES = 32 * 1024 * 1024;

export interface CheckpointFetchOptions {
  readonly crypto: Crypto;
  readonly view: number;
  readonly port: TransferPort;
  readonly donor: ReplicaId;
  readonly header: ImageHeader;
  readonly root: Digest;
  /** Digests of the chunks staged already; kept up to date by its owner. */
  readonly held: ReadonlyMap<Digest, number>;
  readonly retain: (digests: ReadonlySet<Digest>) => void;
  readonly stage: (chunks: readonly VerifiedChunk[]) => void;
}

/** What became of an answer; null: taken, or none of ours. A code names a lie of the donor. */
export type Verdict = { readonly type: "gone" } | { readonly type: "lie"; readonly code: string } | null;

const GONE: Verdict = { type: "gone" };

function lie(code: string): Verdict {
  return { type: "lie", code };
}

export class CheckpointFetch {
  readonly #options: CheckpointFetchOptions;
  #manifest: readonly ChunkSummary[] | null = null;
  #digests: ReadonlySet<Digest> = new Set();
  /** Bytes of the chunks that are not on disk, by digest. */
  readonly #missing = new Map<Digest, number>();
  /** Indexes not asked for yet, the next one last. */
  #toAsk: number[] = [];
  /** By index, when it was asked. */
  readonly #asked = new Map<number, number>();
  #arrived: VerifiedChunk[] = [];
  readonly #staging = new Map<Digest, number>();
  #arrivedBytes = 0;
  #stagingBytes = 0;
  #stagedBytes = 0;
  #window: { readonly sinceUs: number; readonly bytes: number };
  #manifestAskedUs = Number.NEGATIVE_INFINITY;
  /** When the donor last delivered, or began to owe something. */
  #deliveredUs: number;

  constructor(options: CheckpointFetchOptions) {
    this.#options = options;
    this.#deliveredUs = options.port.nowUs();
    this.#window = { sinceUs: this.#deliveredUs, bytes: 0 };
  }

  get complete(): boolean {
    return this.#manifest !== null && this.#missing.size === 0;
  }

  /** Verified bytes of this checkpoint. */
  get bytes(): number {
    return this.#stagedBytes + this.#arrivedBytes + this.#stagingBytes;
  }

  /** Less than a trickle: a donor could go on like this for ever without ever stalling. */
  get slow(): boolean {
    const { sinceUs, bytes } = this.#window;
    const nowUs = this.#options.port.nowUs();
    if (nowUs - sinceUs < SLOW_WINDOW_US) return false;
    this.#window = { sinceUs: nowUs, bytes: this.bytes };
    return this.bytes - bytes < SLOW_WINDOW_BYTES;
  }

  /** Must this digest be kept? Everything must while the manifest is not known. */
  wants(digest: Digest): boolean {
    return this.#manifest === null || this.#digests.has(digest);
  }

  get stalled(): boolean {
    const owes = this.#manifest === null || this.#asked.size > 0;
    return owes && this.#options.port.nowUs() - this.#deliveredUs >= STALL_US;
  }

  /** Asks for what is due, and again for what was not answered. */
  ask(): void {
    const nowUs = this.#options.port.nowUs();
    if (this.#manifest === null) {
      if (nowUs - this.#manifestAskedUs < REPEAT_US) return;
      this.#manifestAskedUs = nowUs;
      this.#send({ type: "FETCH_MANIFEST", ...this.#place() });
      return;
    }
    for (const [index, askedUs] of this.#asked) if (nowUs - askedUs >= REPEAT_US) this.#askChunk(index, nowUs);
    while (this.#asked.size < ASKED_MAX && this.#arrivedBytes + this.#stagingBytes < UNSTAGED_BYTES_MAX) {
      const index = this.#toAsk.pop();
      if (index === undefined) return;
      if (this.#isHeld(index)) continue;
      if (this.#asked.size === 0) this.#deliveredUs = nowUs;
      this.#askChunk(index, nowUs);
    }
  }

  /** What was asked before may be lost: ask again at once. */
  reconnected(): void {
    this.#manifestAskedUs = Number.NEGATIVE_INFINITY;
    for (const index of this.#asked.keys()) this.#asked.set(index, Number.NEGATIVE_INFINITY);
  }

  onManifest({ instance, root, manifest }: MessageOf<"MANIFEST">): Verdict {
    if (this.#manifest !== null || !this.#isOurs(instance, root)) return null;
    const { crypto, header, held, port } = this.#options;
    if (manifest.length === 0 && header.chunks > 0) return GONE;
    if (crypto.sha256(manifest) !== header.manifest) return lie("MANIFEST_DIGEST");
    const chunks = decoded(() => decodeManifest(manifest));
    if (isRejection(chunks)) return lie("MANIFEST_MALFORMED");
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
    if (chunks.length !== header.chunks || bytes !== header.bytes) return lie("MANIFEST_SIZE");
    const digests = new Set(chunks.map((chunk) => chunk.digest));
    // Keys rise from chunk to chunk: no two of them are equal.
    if (digests.size !== chunks.length) return lie("MANIFEST_TWICE");
    this.#manifest = chunks;
    this.#digests = digests;
    this.#toAsk = chunks.flatMap(({ digest }, index) => (held.has(digest) ? [] : [index])).reverse();
    for (const { digest, bytes } of chunks) {
      if (held.has(digest)) this.#stagedBytes += bytes;
      else this.#missing.set(digest, bytes);
    }
    this.#deliveredUs = port.nowUs();
    this.#options.retain(digests);
    return null;
  }

  onChunk({ instance, root, index, chunk }: MessageOf<"CHUNK">): Verdict {
    const summary = this.#manifest?.[index];
    if (!summary || !this.#asked.has(index) || !this.#isOurs(instance, root)) return null;
    if (chunk.length === 0) return GONE;
    const { crypto, port } = this.#options;
    const { digest, bytes } = summary;
    if (chunk.length !== bytes || crypto.sha256(chunk) !== digest) return lie("CHUNK_DIGEST");
    const entries = decoded(() => decodeChunk(chunk));
    if (isRejection(entries)) return lie("CHUNK_MALFORMED");
    this.#asked.delete(index);
    this.#deliveredUs = port.nowUs();
    if (!this.#isHeld(index)) {
      this.#arrived.push({ digest, bytes, entries });
      this.#arrivedBytes += bytes;
    }
    const last = this.#asked.size === 0 && this.#toAsk.every((other) => this.#isHeld(other));
    if (this.#arrivedBytes >= STAGE_BYTES || last) this.flush();
    return null;
  }

  /** These are on disk. */
  onStaged(digests: readonly Digest[]): void {
    for (const digest of digests) {
      this.#stagingBytes -= this.#staging.get(digest) ?? 0;
      this.#staging.delete(digest);
      this.#stagedBytes += this.#missing.get(digest) ?? 0;
      this.#missing.delete(digest);
    }
  }

  /** What arrived goes to disk, so that it outlives this donor. */
  flush(): void {
    const chunks = this.#arrived;
    if (chunks.length === 0) return;
    this.#arrived = [];
    for (const { digest, bytes } of chunks) this.#staging.set(digest, bytes);
    this.#stagingBytes += this.#arrivedBytes;
    this.#arrivedBytes = 0;
    this.#options.stage(chunks);
  }

  #isHeld(index: number): boolean {
    const digest = this.#manifest?.[index]?.digest;
    return digest !== undefined && this.#options.held.has(digest);
  }

  #isOurs(instance: number, root: Digest): boolean {
    return instance === this.#options.header.instance && root === this.#options.root;
  }

  #place(): { view: number; regency: number; instance: number; root: Digest } {
    const { view, header, root } = this.#options;
    return { view, regency: 0, instance: header.instance, root };
  }

  #askChunk(index: number, nowUs: number): void {
    this.#asked.set(index, nowUs);
    this.#send({ type: "FETCH_CHUNK", ...this.#place(), index });
  }

  #send(message: MessageOf<"FETCH_MANIFEST"> | MessageOf<"FETCH_CHUNK">): void {
    this.#options.port.send(this.#options.donor, message);
  }
}
