/** KEY arguments, checked before anything connects: the same limits as the service, so a wrong key costs no round trip. */
import { utf8 } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";
import { KEY_BYTES_MAX, VALUE_BYTES_MAX } from "../protocol/limits.ts";

/** @throws QuorateError KEY_EMPTY, KEY_TOO_LARGE */
export function checkKey(key: Uint8Array): Uint8Array {
  if (key.length === 0) throw new QuorateError("KEY_EMPTY", "the key is empty; a key holds 1 to 4096 bytes");
  if (key.length > KEY_BYTES_MAX) {
    const why = `the key has ${key.length} bytes; a key holds at most ${KEY_BYTES_MAX}`;
    throw new QuorateError("KEY_TOO_LARGE", why, { limit: KEY_BYTES_MAX });
  }
  return key;
}

export function keyArgument(text: string): Uint8Array {
  return checkKey(utf8(text));
}

/** @throws QuorateError VALUE_TOO_LARGE */
export function checkValue(value: Uint8Array): Uint8Array {
  if (value.length > VALUE_BYTES_MAX) {
    const why = `the value has ${value.length} bytes; a value holds at most ${VALUE_BYTES_MAX}`;
    throw new QuorateError("VALUE_TOO_LARGE", why, { limit: VALUE_BYTES_MAX });
  }
  return value;
}
