/**
 * Fixed binary layouts: big-endian, length-prefixed, one encoding per value. Everything that is signed, MACed or
 * hashed is written with `Writer` (or travels as the bytes received), so that accepted bytes re-encode to themselves.
 * Both lie on the path of every request: in Node they work on Buffers, whose short strings and small copies are cheap.
 */
import { allocate, type ByteBuffer, bufferOver, latin1Slice, writeLatin1 } from "./bytes.ts";
import { assert, Malformed } from "./errors.ts";

const KEPT_BYTES_MAX = 64 * 1024;

/** Appends fields to a growing buffer. `finish()` copies out exactly what was written; `reset()` starts again. */
export class Writer {
  #bytes: ByteBuffer;
  readonly #keptBytesMax: number;
  #at = 0;

  /** A buffer that grew beyond `keptBytesMax` is given back by `reset`. */
  constructor(initialBytes = 256, keptBytesMax = KEPT_BYTES_MAX) {
    this.#bytes = allocate(initialBytes);
    this.#keptBytesMax = keptBytesMax;
  }

  reset(): this {
    if (this.#bytes.length > this.#keptBytesMax) this.#bytes = allocate(256);
    this.#at = 0;
    return this;
  }

  #room(count: number): number {
    const at = this.#at;
    const need = at + count;
    if (need > this.#bytes.length) {
      const grown = allocate(Math.max(need, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
    }
    this.#at = need;
    return at;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#bytes[at] = value;
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    const bytes = this.#bytes;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    return this;
  }

  /** An integer from 0 to 2^53 - 1 in eight bytes. */
  u53(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, "u53 out of range");
    return this.u32(Math.floor(value / 0x1_0000_0000)).u32(value >>> 0);
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
    const copy = allocate(this.#at);
    copy.set(this.view());
    return copy;
  }
}

/** Reads fields in order. Every read is bounds-checked; returned byte strings are views into the input. @throws Malformed */
export class Reader {
  readonly #bytes: ByteBuffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bufferOver(bytes);
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
    const at = this.#take(4);
    const bytes = this.#bytes;
    const high = (bytes[at] as number) * 0x100_0000;
    return high + (((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
  }

  u53(): number {
    const high = this.u32();
    if (high > 0x1f_ffff) throw new Malformed("NUMBER_RANGE");
    return high * 0x1_0000_0000 + this.u32();
  }

  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  rawLatin1(count: number): string {
    const at = this.#take(count);
    return latin1Slice(this.#bytes, at, at + count);
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
