/**
 * Fixed binary layouts: big-endian, length-prefixed, one encoding per value. Everything that is signed, MACed or
 * hashed is written with `Writer` (or travels as the bytes received), so that accepted bytes re-encode to themselves.
 */
import { latin1, writeLatin1 } from "./bytes.ts";
import { assert, Malformed } from "./errors.ts";

const SCRATCH_BYTES = 64 * 1024;

/** Appends fields to a growing buffer. `finish()` copies out exactly what was written; `reset()` starts again. */
export class Writer {
  #bytes: Uint8Array;
  #view: DataView;
  #at = 0;

  constructor(initialBytes = 256) {
    this.#bytes = new Uint8Array(initialBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  reset(): this {
    if (this.#bytes.length > SCRATCH_BYTES) {
      this.#bytes = new Uint8Array(256);
      this.#view = new DataView(this.#bytes.buffer);
    }
    this.#at = 0;
    return this;
  }

  #room(count: number): number {
    const at = this.#at;
    const need = at + count;
    if (need > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(need, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#at = need;
    return at;
  }

  u8(value: number): this {
    // `#room` may replace the buffer: it must be called before the buffer is named.
    const at = this.#room(1);
    this.#bytes[at] = value;
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#view.setUint32(at, value);
    return this;
  }

  /** An integer from 0 to 2^53 - 1 in eight bytes. */
  u53(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, "u53 out of range");
    const at = this.#room(8);
    this.#view.setUint32(at, Math.floor(value / 0x1_0000_0000));
    this.#view.setUint32(at + 4, value >>> 0);
    return this;
  }

  /** Bytes whose length the reader knows. */
  raw(bytes: Uint8Array): this {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** A latin1 string whose length the reader knows (digests, client ids). */
  rawLatin1(text: string): this {
    const at = this.#room(text.length);
    writeLatin1(this.#bytes, at, text);
    return this;
  }

  /** u32 length, then the bytes. */
  bytes(bytes: Uint8Array): this {
    return this.u32(bytes.length).raw(bytes);
  }

  get length(): number {
    return this.#at;
  }

  /** A view of what was written, valid until the next call of any method. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }
}

/** Reads fields in order. Every read is bounds-checked; returned byte strings are views into the input. @throws Malformed */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) throw new Malformed("TRUNCATED");
    this.#at = at + count;
    return at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)] as number;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  u53(): number {
    const at = this.#take(8);
    const high = this.#view.getUint32(at);
    if (high > 0x1f_ffff) throw new Malformed("NUMBER_RANGE");
    return high * 0x1_0000_0000 + this.#view.getUint32(at + 4);
  }

  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  rawLatin1(count: number): string {
    return latin1(this.raw(count));
  }

  /** u32 length (at most `max`), then a view of the bytes. */
  bytes(max: number): Uint8Array {
    const length = this.u32();
    if (length > max) throw new Malformed("TOO_LONG");
    return this.raw(length);
  }

  get at(): number {
    return this.#at;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** @throws Malformed when bytes are left over: a layout has one encoding. */
  end(): void {
    if (this.left !== 0) throw new Malformed("TRAILING_BYTES");
  }
}
