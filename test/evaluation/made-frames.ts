/** Frames of one session made ahead, in the order of their sequences: many in a piece of memory, which costs the collector nothing. */
const SLAB_BYTES = 4 * 1024 * 1024;

export class MadeFrames {
  readonly #slabs: Buffer[] = [];
  /** Of each frame: its slab, and where it ends there. */
  readonly #places: { slab: number; end: number }[] = [];
  #at = 0;
  #next = 0;

  add(frame: Buffer): void {
    let slab = this.#slabs.at(-1);
    if (!slab || this.#at + frame.length > slab.length) {
      slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, frame.length));
      this.#slabs.push(slab);
      this.#at = 0;
    }
    slab.set(frame, this.#at);
    this.#at += frame.length;
    this.#places.push({ slab: this.#slabs.length - 1, end: this.#at });
  }

  /** The next one, or null when all have been taken. */
  take(): Buffer | null {
    const place = this.#places[this.#next];
    if (!place) return null;
    const before = this.#places[this.#next - 1];
    this.#next++;
    return (this.#slabs[place.slab] as Buffer).subarray(before?.slab === place.slab ? before.end : 0, place.end);
  }
}
