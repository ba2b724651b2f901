/**
 * The completed checkpoints whose snapshots are open (docs/protocol.md section 6): the newest one, to be offered; and older
 * ones that a receiver is *pinned* to. A pin lasts as long as some receiver makes progress: it ends without a new chunk
 * asked for in a minute, when two newer ones are pinned, or when the transfer is slower than any that could keep up.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { StateSnapshot } from "../../storage/contract.ts";
import type { Image } from "./image-builder.ts";
import type { PaceClock } from "./pause.ts";

const PIN_IDLE_US_MAX = 60_000_000;
const PINS_MAX = 2;
/** Time a superseded checkpoint may take to be fetched in any case, and the rate beyond that. */
const PIN_GRACE_US = 600_000_000;
const PIN_BYTES_PER_SECOND_MIN = 1024 * 1024;

export class HeldImage {
  readonly image: Image;
  readonly snapshot: StateSnapshot;
  /** A receiver made progress, last. */
  lastUsedUs = Number.NEGATIVE_INFINITY;
  supersededUs = Number.POSITIVE_INFINITY;
  /** Per receiver which chunks it has asked for. */
  readonly #asked = new Map<ReplicaId, Uint8Array>();
  readonly #failed: (error: unknown) => void;
  #readers = 0;
  #dropped = false;

  constructor(image: Image, snapshot: StateSnapshot, failed: (error: unknown) => void) {
    this.image = image;
    this.snapshot = snapshot;
    this.#failed = failed;
  }

  get instance(): number {
    return this.image.header.instance;
  }

  /** When the pin ends unless there is progress. */
  get pinnedUntilUs(): number {
    const sinceUs = this.supersededUs + PIN_GRACE_US + (this.image.header.bytes / PIN_BYTES_PER_SECOND_MIN) * 1_000_000;
    return Math.min(this.lastUsedUs + PIN_IDLE_US_MAX, sinceUs);
  }

  /** This receiver asks for this chunk: whether it never did before. */
  asks(receiver: ReplicaId, index: number): boolean {
    let asked = this.#asked.get(receiver);
    if (!asked) {
      asked = new Uint8Array(this.image.firstKeys.length);
      this.#asked.set(receiver, asked);
    }
    const first = asked[index] === 0;
    asked[index] = 1;
    return first;
  }

  /** The snapshot stays open at least until `work` is done. */
  async reading<T>(work: () => Promise<T>): Promise<T> {
    this.#readers += 1;
    try {
      return await work();
    } finally {
      this.#readers -= 1;
      if (this.#dropped) this.drop();
    }
  }

  /** Closes the snapshot once nobody reads it. */
  drop(): void {
    this.#dropped = true;
    if (this.#readers === 0) this.snapshot.close().catch(this.#failed);
  }
}

export class HeldImages {
  readonly #clock: PaceClock;
  /** A pin ended. */
  readonly #unpinned: () => void;
  /** Newest first. */
  #held: HeldImage[] = [];
  #cancelTimer: (() => void) | null = null;

  constructor(clock: PaceClock, unpinned: () => void) {
    this.#clock = clock;
    this.#unpinned = unpinned;
  }

  get newest(): HeldImage | null {
    return this.#held[0] ?? null;
  }

  get all(): readonly HeldImage[] {
    return this.#held;
  }

  /** The oldest checkpoint that a receiver is pinned to, or null. */
  get oldestPinned(): HeldImage | null {
    return this.#held.length > 1 ? (this.#held.at(-1) ?? null) : null;
  }

  find(instance: number, root: Digest): HeldImage | null {
    return this.#held.find((held) => held.instance === instance && held.image.root === root) ?? null;
  }

  /** A receiver asks for a chunk, or for the manifest (null). */
  used(held: HeldImage, receiver: ReplicaId, index: number | null): void {
    if (index !== null && !held.asks(receiver, index)) return;
    held.lastUsedUs = this.#clock.nowUs();
  }

  /** A newer one than all before. */
  add(held: HeldImage): void {
    const before = this.#held[0];
    if (before) before.supersededUs = this.#clock.nowUs();
    this.#held.unshift(held);
    this.#dropUnpinned();
  }

  close(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    for (const held of this.#held.splice(0)) held.drop();
  }

  #dropUnpinned(): void {
    const nowUs = this.#clock.nowUs();
    const [newest, ...older] = this.#held;
    if (!newest) return;
    const pinned = older.filter((held) => held.pinnedUntilUs > nowUs).slice(0, PINS_MAX);
    this.#held = [newest, ...pinned];
    for (const held of older) if (!pinned.includes(held)) held.drop();
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    if (pinned.length === 0) return;
    const endsUs = Math.min(...pinned.map((held) => held.pinnedUntilUs));
    this.#cancelTimer = this.#clock.at(endsUs, () => {
      this.#dropUnpinned();
      this.#unpinned();
    });
  }
}
