/** Codecs: how values become bytes and bytes become values. Decoding never replaces a byte: what cannot be read is an error. */
import { textOf, utf8 as utf8Bytes } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";

/** Turns values into bytes and back. `decode(encode(value))` must equal `value`. */
export interface Codec<T> {
  readonly name: string;
  encode(value: T): Uint8Array;
  /** @throws QuorateError DECODE_FAILED when the bytes are no such value. */
  decode(bytes: Uint8Array): T;
}

/**
 * The part of Standard Schema (https://standardschema.dev) that `json(schema)` needs: zod, valibot, arktype and others have it.
 */
export interface StandardSchema<T> {
  readonly "~standard": {
    readonly validate: (value: unknown) => StandardResult<T> | Promise<StandardResult<T>>;
  };
}

type StandardResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string }[] };

const LONE_SURROGATE = /\p{Surrogate}/u;

/** The UTF-8 bytes of a text. @throws QuorateError INVALID_ARGUMENT for a lone surrogate, which UTF-8 cannot hold. */
export function textBytes(text: string, what: string): Uint8Array {
  if (LONE_SURROGATE.test(text)) {
    throw new QuorateError("INVALID_ARGUMENT", `${what} holds a lone surrogate, which is no text; pass bytes instead`);
  }
  return utf8Bytes(text);
}

/** Text as UTF-8: the default codec. */
export const utf8: Codec<string> = {
  name: "utf8",
  encode(value) {
    if (typeof value !== "string") {
      throw new QuorateError("INVALID_ARGUMENT", `the value is no string but ${typeof value}; choose another codec`);
    }
    return textBytes(value, "the value");
  },
  decode(bytes) {
    const text = textOf(bytes);
    if (text === null)
      throw new QuorateError("DECODE_FAILED", "the value is not UTF-8 text; read it with codec: bytes");
    return text;
  },
};

/** Bytes as they are. What is read is a copy of its own. */
export const bytes: Codec<Uint8Array> = {
  name: "bytes",
  encode(value) {
    if (!(value instanceof Uint8Array)) {
      throw new QuorateError(
        "INVALID_ARGUMENT",
        `the value is no Uint8Array but ${typeof value}; choose another codec`,
      );
    }
    return value;
  },
  decode: (raw) => new Uint8Array(raw),
};

/**
 * JSON, typed and, with a schema, checked when writing and when reading. Without a schema `T` is a promise of the caller's.
 *
 * @example
 * ```ts
 * const users = kv.withCodec(json<{ name: string }>());
 * await users.put("u/1", { name: "Ada" });
 * ```
 * @throws QuorateError INVALID_ARGUMENT (encoding), DECODE_FAILED (decoding)
 */
export function json<T>(schema?: StandardSchema<T>): Codec<T> {
  const checked = (value: unknown, code: "INVALID_ARGUMENT" | "DECODE_FAILED"): T => {
    if (!schema) return value as T;
    const result = schema["~standard"].validate(value);
    if (result instanceof Promise) {
      throw new QuorateError("INVALID_ARGUMENT", "the schema validates asynchronously; use a synchronous one");
    }
    if (result.issues) {
      throw new QuorateError(code, `the value does not fit the schema: ${result.issues[0]?.message ?? "invalid"}`);
    }
    return result.value;
  };
  return {
    name: "json",
    encode(value) {
      const text = JSON.stringify(schema ? checked(value, "INVALID_ARGUMENT") : value);
      if (text === undefined) throw new QuorateError("INVALID_ARGUMENT", "the value has no JSON form");
      return utf8Bytes(text);
    },
    decode(raw) {
      const text = textOf(raw);
      let value: unknown;
      try {
        if (text === null) throw new SyntaxError("not UTF-8");
        value = JSON.parse(text);
      } catch (cause) {
        throw new QuorateError("DECODE_FAILED", "the value is not JSON; read it with codec: bytes", {}, cause);
      }
      return checked(value, "DECODE_FAILED");
    },
  };
}
