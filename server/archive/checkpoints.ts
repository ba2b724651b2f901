/**
 * The checkpoints of this replica (docs/protocol.md section 6): when one is taken, which are offered, what their roots are,
 * and how much of the log they make superfluous.
 *
 * A checkpoint begins with a snapshot at exactly one instance, which the write-behind cuts; its image is computed in the
 * background, one at a time. When it is complete its root is signed, written down, announced, and the log truncated: what is
 * kept of it always reaches down to the second-newest completed checkpoint, and to any that a receiver is pinned to.
 */
import { type Digest, hex } from "../../protocol/bytes.ts";
import type { Crypto, Signer } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import { type ImageHeader, rootStatement } from "../../protocol/image.ts";
import { CHUNKS_MAX, LOG_BYTES_MAX, OFFERED_CHECKPOINTS_MAX } from "../../protocol/limits.ts";
import type { SignedRoot } from "../../protocol/messages.ts";
import { positionOf, type ReplicaId, type View } from "../../protocol/view.ts";
import type { Journal, StateSnapshot, StateStore } from "../../storage/contract.ts";
import { checkpointDue, commonRootDue } from "../recovery/schedule.ts";
import { HeldImage, HeldImages } from "./checkpoint-images.ts";
import { decodeRoots, encodeRoots, logNeededFrom, type OwnRoot, type RootKind, withRoot } from "./checkpoint-roots.ts";
import { type Image, ImageBuilder } from "./image-builder.ts";
import type { PaceClock } from "./pause.ts";

const NOTE = "roots";
/**
 * After a start, and in a new view, there is no image to offer: one is taken so soon, the members one after the other, so that
 * not all compute theirs at once. Who needs one sooner asks for it.
 */
const START_US = 2_000_000;
const START_STEP_US = 2_000_000;
/** From one that others asked for to the next at least; and so many times what the last one took. */
const REQUEST_SPACING_US = 5_000_000;
const REQUEST_SPACING_FACTOR = 4;
/** Between two that a large log asks for. */
const LOG_SPACING_US = 30_000_000;
/** Snapshots under way at most, the one being computed included: a checkpoint, and a common root right after it. */
const UNDER_WAY_MAX = 2;
/** Records dropped in one write: appends wait for it. */
const TRUNCATED_AT_ONCE_MAX = 4_096;
/** A log above this is truncated whoever is pinned. */
const PINNED_LOG_BYTES_MAX = 2 * LOG_BYTES_MAX;

export interface CheckpointsPort {
  /** The last executed instance. */
  executed(): number;
  /** `WriteBehind.cut`. */
  cut(then: (snapshot: StateSnapshot) => void): boolean;
  /** There are requests to serve. */
  busy(): boolean;
  /** A new root, signed and written down: to be said to all others, and compared with theirs. */
  announce(root: SignedRoot): void;
  /** An image is complete. */
  completed?(checkpoint: { instance: number; root: Digest; bytes: number; chunks: number; seconds: number }): void;
  /** Storage failed, or is damaged (QuorateError). */
  failed(error: unknown): void;
}

export interface CheckpointsParts {
  readonly crypto: Crypto;
  readonly view: View;
  /** What roots are bound to. */
  readonly genesis: View;
  readonly self: ReplicaId;
  readonly signer: Signer;
  readonly journal: Journal;
  readonly state: StateStore;
  readonly period: number;
  /** No root of a state below this instance is computed. */
  readonly settledFrom: number;
  readonly clock: PaceClock;
  readonly port: CheckpointsPort;
}

export interface CheckpointStatus {
  readonly newest: {
    readonly instance: number;
    readonly root: string;
    readonly bytes: number;
    readonly chunks: number;
  } | null;
  readonly computing: boolean;
  readonly period: number;
}

export class Checkpoints {
  readonly images: HeldImages;
  readonly #parts: CheckpointsParts;
  readonly #builder: ImageBuilder;
  readonly #position: number;
  #roots: OwnRoot[] = [];
  /** Snapshots asked for and not dealt with yet. */
  #underWay = 0;
  #checkpointUnderWay = false;
  #startDue = false;
  #cancelStart: (() => void) | null = null;
  #requestedUs = Number.NEGATIVE_INFINITY;
  #forLogUs = Number.NEGATIVE_INFINITY;
  #lastTookUs = 0;
  #truncating = false;
  #closed = false;

  /** Reads the roots of before from the state store. @throws QuorateError STORAGE_DAMAGED */
  constructor(parts: CheckpointsParts) {
    this.#parts = parts;
    const { crypto, view, clock, port, state } = parts;
    this.#position = positionOf(view, parts.self);
    this.#builder = new ImageBuilder({ crypto, view: parts.genesis, clock, busy: () => port.busy() });
    this.images = new HeldImages(clock, () => this.#truncate());
    const note = state.note(NOTE);
    const roots = note ? decoded(() => decodeRoots(note)) : [];
    this.#roots = isRejection(roots) ? [] : roots.map((root) => ({ ...root, signature: this.#signatureOf(root) }));
  }

  /** The first checkpoint of this run comes soon after. */
  start(): void {
    const { clock } = this.#parts;
    this.#cancelStart = clock.at(clock.nowUs() + START_US + this.#position * START_STEP_US, () => {
      this.#startDue = true;
      this.#takeFirst();
    });
  }

  /** `instance` was just executed, and the next one not yet. */
  executed(instance: number): void {
    const { view, period } = this.#parts;
    const at = { instance, position: this.#position, n: view.n, period };
    if (checkpointDue(at)) this.#take("checkpoint");
    else if (commonRootDue(at)) this.#take("common");
    else if (this.#startDue) this.#takeFirst();
    else this.#takeForLog();
  }

  /** Somebody needs a root at or after this instance (FETCH_OFFER). */
  requested(rootsFrom: number): void {
    const { clock, port } = this.#parts;
    if (rootsFrom === 0 || rootsFrom > port.executed()) return;
    const { newest } = this.images;
    if (newest && this.#roots.some((root) => root.instance >= rootsFrom)) return;
    const spacingUs = Math.max(REQUEST_SPACING_US, REQUEST_SPACING_FACTOR * this.#lastTookUs);
    if (newest && clock.nowUs() < this.#requestedUs + spacingUs) return;
    if (this.#take("requested")) this.#requestedUs = clock.nowUs();
  }

  /** What can be fetched, newest first. */
  offers(): ImageHeader[] {
    const headers = this.images.all.map((held) => held.image.header);
    return headers.filter((header) => header.chunks <= CHUNKS_MAX).slice(0, OFFERED_CHECKPOINTS_MAX);
  }

  /** Newest first. */
  roots(): SignedRoot[] {
    return this.#roots.map(({ instance, root, signature }) => ({ instance, root, signature }));
  }

  get status(): CheckpointStatus {
    const held = this.images.newest;
    const { period } = this.#parts;
    const computing = this.#underWay > 0;
    if (!held) return { newest: null, computing, period };
    const { instance, bytes, chunks } = held.image.header;
    return { newest: { instance, root: hex(held.image.root), bytes, chunks }, computing, period };
  }

  /** Before the storage closes: nothing is begun any more, and every snapshot is closed as soon as nobody reads it. */
  close(): void {
    this.#closed = true;
    this.#cancelStart?.();
    this.#builder.stop();
    this.images.close();
  }

  // ---- when

  #takeFirst(): void {
    if (this.images.newest || this.#checkpointUnderWay || this.#take("requested")) this.#startDue = false;
  }

  #takeForLog(): void {
    const { journal, clock } = this.#parts;
    if (journal.logBytes <= LOG_BYTES_MAX) return;
    const spacingUs = Math.max(LOG_SPACING_US, this.#lastTookUs);
    if (clock.nowUs() < this.#forLogUs + spacingUs) return;
    if (this.#take("checkpoint")) this.#forLogUs = clock.nowUs();
  }

  /** A snapshot at the current instance, unless enough are under way; false when none is taken. */
  #take(kind: RootKind): boolean {
    const { port, settledFrom } = this.#parts;
    const instance = port.executed();
    if (this.#closed || instance === 0 || instance < settledFrom || this.#underWay >= UNDER_WAY_MAX) return false;
    if (kind !== "common") {
      if (this.#checkpointUnderWay || this.images.newest?.instance === instance) return false;
      this.#checkpointUnderWay = true;
    }
    this.#underWay += 1;
    const taken = port.cut((snapshot) => {
      this.#compute(kind, snapshot).catch(this.#failed);
    });
    if (!taken) this.#over(kind);
    return taken;
  }

  #over(kind: RootKind): void {
    this.#underWay -= 1;
    if (kind !== "common") this.#checkpointUnderWay = false;
  }

  // ---- how

  async #compute(kind: RootKind, snapshot: StateSnapshot): Promise<void> {
    const { clock } = this.#parts;
    const sinceUs = clock.nowUs();
    let held = false;
    try {
      const image = this.#closed ? null : await this.#builder.build(snapshot);
      if (!image || this.#closed) return;
      this.#lastTookUs = clock.nowUs() - sinceUs;
      if (kind !== "common") {
        this.images.add(new HeldImage(image, snapshot, this.#failed));
        held = true;
      }
      await this.#record(kind, image);
    } finally {
      this.#over(kind);
      if (!held) await snapshot.close();
    }
  }

  /** The root is written down before anybody hears it, and before the log loses what a restart would want. */
  async #record(kind: RootKind, { header, root }: Image): Promise<void> {
    const { state, port } = this.#parts;
    const { instance, bytes, chunks } = header;
    const signature = this.#signatureOf({ instance, root });
    this.#roots = withRoot(this.#roots, { kind, instance, root, signature });
    await state.writeNote(NOTE, encodeRoots(this.#roots));
    if (this.#closed) return;
    port.completed?.({ instance, root, bytes, chunks, seconds: this.#lastTookUs / 1_000_000 });
    port.announce({ instance, root, signature });
    this.#truncate();
  }

  /** For the view in force now, with the key of now. */
  #signatureOf({ instance, root }: { readonly instance: number; readonly root: Digest }): Uint8Array {
    const { view, signer } = this.#parts;
    return signer(rootStatement(view.cluster, { view: view.id, instance, root }));
  }

  #truncate(): void {
    const { journal } = this.#parts;
    if (this.#closed || this.#truncating) return;
    const to = this.#truncatableTo();
    if (to === null || to <= journal.base.instance + 1) return;
    this.#truncating = true;
    journal.truncate(Math.min(to, journal.base.instance + 1 + TRUNCATED_AT_ONCE_MAX)).then(() => {
      this.#truncating = false;
      this.#truncate();
    }, this.#failed);
  }

  readonly #failed = (error: unknown): void => {
    if (!this.#closed) this.#parts.port.failed(error);
  };

  /** The oldest instance that must stay; null: all of them. Never above what the state on disk stands at. */
  #truncatableTo(): number | null {
    const { journal, state } = this.#parts;
    const tooLong = journal.logBytes > LOG_BYTES_MAX;
    const neededFrom = logNeededFrom(this.#roots, (kind) => kind === "checkpoint" || (tooLong && kind === "requested"));
    if (neededFrom === null) return null;
    const pinned = journal.logBytes > PINNED_LOG_BYTES_MAX ? null : this.images.oldestPinned;
    return Math.min(neededFrom, state.applied.instance, journal.last, pinned ? pinned.instance + 1 : neededFrom);
  }
}
