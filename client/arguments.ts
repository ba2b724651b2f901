/** Checks what callers pass, before anything is sent: a wrong argument is an error with a code, never a closed connection. */
import { fromHex } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";
import { KEY_BYTES_MAX, VALUE_BYTES_MAX } from "../protocol/limits.ts";
import { type Codec, textBytes } from "./codecs.ts";
import type { Key } from "./kv-types.ts";

/** @throws QuorateError KEY_EMPTY, KEY_TOO_LARGE, INVALID_ARGUMENT */
export function keyOf(key: Key): Uint8Array {
  const bytes = boundOf(key);
  if (bytes.length === 0) throw new QuorateError("KEY_EMPTY", "the key is empty; a key has 1 byte to 4 KiB");
  return bytes;
}

/** A key, or a bound of a range, which may be empty. @throws QuorateError KEY_TOO_LARGE, INVALID_ARGUMENT */
export function boundOf(key: Key): Uint8Array {
  if (typeof key !== "string" && !(key instanceof Uint8Array)) {
    throw new QuorateError("INVALID_ARGUMENT", `a key is a string or a Uint8Array, not ${typeof key}`);
  }
  const bytes = typeof key === "string" ? textBytes(key, "the key") : key;
  if (bytes.length > KEY_BYTES_MAX) {
    const message = `the key has ${bytes.length} bytes; at most ${KEY_BYTES_MAX} are possible`;
    throw new QuorateError("KEY_TOO_LARGE", message, { bytes: bytes.length, max: KEY_BYTES_MAX });
  }
  return bytes;
}

/** @throws QuorateError VALUE_TOO_LARGE, and what the codec throws */
export function valueBytes<T>(codec: Codec<T>, value: T): Uint8Array {
  const bytes = codec.encode(value);
  if (bytes.length > VALUE_BYTES_MAX) {
    const message = `the value has ${bytes.length} bytes; at most ${VALUE_BYTES_MAX} are possible`;
    throw new QuorateError("VALUE_TOO_LARGE", message, { bytes: bytes.length, max: VALUE_BYTES_MAX });
  }
  return bytes;
}

/** The wire's condition: null for none, 0 for "absent". @throws QuorateError INVALID_ARGUMENT */
export function conditionOf(options: {
  readonly ifRevision?: bigint | undefined;
  readonly ifAbsent?: true | undefined;
}): number | null {
  const { ifRevision, ifAbsent } = options;
  if (ifRevision === undefined) return ifAbsent ? 0 : null;
  if (ifAbsent) throw new QuorateError("INVALID_ARGUMENT", "give either ifRevision or ifAbsent");
  if (typeof ifRevision !== "bigint" || ifRevision < 0n || ifRevision > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new QuorateError("INVALID_ARGUMENT", "a revision is a bigint from 0n, such as 17n");
  }
  return Number(ifRevision);
}

/** @throws QuorateError INVALID_ARGUMENT */
export function continuationKey(continuation: string): Uint8Array {
  try {
    const key = fromHex(continuation);
    if (key.length > 0 && key.length <= KEY_BYTES_MAX) return key;
  } catch (cause) {
    throw new QuorateError("INVALID_ARGUMENT", "the continuation is not one that a page returned", {}, cause);
  }
  throw new QuorateError("INVALID_ARGUMENT", "the continuation is not one that a page returned");
}

const display = new TextDecoder("utf-8", { ignoreBOM: true });

/** For people: bytes that are not UTF-8 become U+FFFD. */
export function textOfKey(bytes: Uint8Array): string {
  return display.decode(bytes);
}
