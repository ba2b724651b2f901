/**
 * Byte strings. Keys, digests and client ids are held as *latin1 strings* (one character per byte) wherever they
 * index a map: V8 keeps them compact, and `<` on them is byte order. Works in browsers; uses Buffer where there is one.
 */

declare const digestBrand: unique symbol;
/** A SHA-256 digest as a latin1 string of exactly 32 characters. */
export type Digest = string & { readonly [digestBrand]?: "Digest" };

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const node = (globalThis as { Buffer?: typeof Buffer }).Buffer;

export const EMPTY = new Uint8Array(0);

/** Texts up to this length are encoded into the same memory and copied: several times faster than memory of their own. */
const SHORT_CHARACTERS = 256;
/** UTF-8 takes at most three bytes for a UTF-16 code unit. */
const encoded = new Uint8Array(3 * SHORT_CHARACTERS);

export function utf8(text: string): Uint8Array {
  if (text.length > SHORT_CHARACTERS) return encoder.encode(text);
  return encoded.slice(0, encoder.encodeInto(text, encoded).written);
}

/** The text of valid UTF-8 bytes, or `null`: decoding never replaces a byte. */
export function textOf(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

/** In Node a Buffer, elsewhere a Uint8Array: what `layout.ts` reads and writes. */
export type ByteBuffer = Uint8Array & {
  latin1Slice?(start: number, end: number): string;
  latin1Write?(text: string, at: number): void;
};

/** Uninitialised memory; small pieces come from Node's pool, several times cheaper than a Uint8Array of their own. */
export function allocate(length: number): ByteBuffer {
  return node ? node.allocUnsafe(length) : new Uint8Array(length);
}

/** A copy in memory of its own. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = allocate(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Bytes to be kept for long: a copy, unless they are at least half of the memory that they would hold anyway. */
export function keepable(bytes: Uint8Array): Uint8Array {
  return 2 * bytes.length >= bytes.buffer.byteLength ? bytes : copyOf(bytes);
}

/** The same bytes as a Buffer where there is one: no copy. */
export function bufferOver(bytes: Uint8Array): ByteBuffer {
  return !node || bytes instanceof node ? bytes : node.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function latin1Slice(bytes: ByteBuffer, start: number, end: number): string {
  if (bytes.latin1Slice) return bytes.latin1Slice(start, end);
  let text = "";
  for (let at = start; at < end; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, Math.min(end, at + 8192)));
  }
  return text;
}

export function latin1(bytes: Uint8Array): string {
  return latin1Slice(bufferOver(bytes), 0, bytes.length);
}

/** The bytes of a latin1 string. Characters above 255 are our bug; see `writeLatin1`. */
export function bytesOf(text: string): Uint8Array {
  const bytes = allocate(text.length);
  writeLatin1(bytes, 0, text);
  return bytes;
}

export function writeLatin1(target: ByteBuffer, at: number, text: string): void {
  if (target.latin1Write) target.latin1Write(text, at);
  else for (let index = 0; index < text.length; index++) target[at + index] = text.charCodeAt(index);
}

export function hex(bytes: Uint8Array | string): string {
  const raw = typeof bytes === "string" ? bytesOf(bytes) : bytes;
  let text = "";
  for (const byte of raw) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** @throws RangeError when `text` is not an even number of hexadecimal digits. */
export function fromHex(text: string): Uint8Array {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) throw new RangeError("not hexadecimal");
  const bytes = new Uint8Array(text.length / 2);
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = Number.parseInt(text.slice(index * 2, index * 2 + 2), 16);
  return bytes;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const joined = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Not constant time: for public bytes only. Secrets are compared by `Crypto.equal`. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}

/** The smallest byte string above every one that starts with `prefix` (latin1), or `null` when there is none. */
export function prefixEnd(prefix: string): string | null {
  for (let length = prefix.length; length > 0; length--) {
    const last = prefix.charCodeAt(length - 1);
    if (last < 255) return prefix.slice(0, length - 1) + String.fromCharCode(last + 1);
  }
  return null;
}
