/**
 * CBOR with fixed schemas: every message is an array of known shape. cbor-x decodes; a linear pre-scan before it rejects
 * whatever is not the one encoding of a value (tags, maps, floats, indefinite or over-long lengths, deep nesting), so
 * accepted bytes re-encode to themselves and a hostile frame costs no more than its length (docs/protocol.md, "Bytes").
 */
import { Encoder } from "cbor-x/index-no-eval";
import { Malformed } from "./errors.ts";

const DEPTH_MAX = 8;
const ITEMS_MAX = 200_000;

const cbor = new Encoder({
  useRecords: false,
  variableMapSize: true,
  tagUint8Array: false,
  structuredClone: false,
  mapsAsObjects: true,
  copyBuffers: false,
} as ConstructorParameters<typeof Encoder>[0]);

/** What may stand in a message: nothing else can be encoded or decoded. */
export type Wire = number | bigint | string | boolean | null | Uint8Array | readonly Wire[];

/** A shape: checks a decoded value and types it, or turns a typed value into what is encoded. */
export interface Schema<T> {
  /** @throws Malformed when `value` has another shape, range or length. */
  parse(value: unknown): T;
  wire(value: T): Wire;
}

export type Infer<S> = S extends Schema<infer T> ? T : never;

function fail(code: string): never {
  throw new Malformed(code);
}

export const u32: Schema<number> = {
  parse: (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
      ? value
      : fail("SHAPE_U32"),
  wire: (value) => value,
};

/** 0 to 2^53 - 1. Above 2^32 - 1 CBOR uses eight bytes, which cbor-x reads and writes as bigint. */
export const u53: Schema<number> = {
  parse(value) {
    if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
    if (typeof value === "bigint" && value > 0xffff_ffffn && value <= 9_007_199_254_740_991n) return Number(value);
    return fail("SHAPE_U53");
  },
  wire: (value) => (value > 0xffff_ffff ? BigInt(value) : value),
};

export const bool: Schema<boolean> = {
  parse: (value) => (typeof value === "boolean" ? value : fail("SHAPE_BOOL")),
  wire: (value) => value,
};

export function bytes(limits: { max: number; min?: number }): Schema<Uint8Array> {
  const { max, min = 0 } = limits;
  return {
    parse: (value) =>
      value instanceof Uint8Array && value.length <= max && value.length >= min ? value : fail("SHAPE_BYTES"),
    wire: (value) => value,
  };
}

export function text(limits: { max: number }): Schema<string> {
  return {
    parse: (value) => (typeof value === "string" && value.length <= limits.max ? value : fail("SHAPE_TEXT")),
    wire: (value) => value,
  };
}

export function nullable<T>(inner: Schema<T>): Schema<T | null> {
  return {
    parse: (value) => (value === null ? null : inner.parse(value)),
    wire: (value) => (value === null ? null : inner.wire(value)),
  };
}

export function list<T>(inner: Schema<T>, limits: { max: number }): Schema<T[]> {
  return {
    parse(value) {
      if (!Array.isArray(value) || value.length > limits.max) return fail("SHAPE_LIST");
      for (let index = 0; index < value.length; index++) value[index] = inner.parse(value[index]);
      return value as T[];
    },
    wire: (value) => value.map((item) => inner.wire(item)),
  };
}

type Fields = Record<string, Schema<unknown>>;
type Shape<F extends Fields> = { -readonly [K in keyof F]: Infer<F[K]> };

/** An object encoded as the array of its fields in the order written here. */
export function record<F extends Fields>(fields: F): Schema<Shape<F>> {
  const names = Object.keys(fields);
  const schemas = Object.values(fields);
  return {
    parse(value) {
      if (!Array.isArray(value) || value.length !== names.length) return fail("SHAPE_RECORD");
      const parsed: Record<string, unknown> = {};
      for (let index = 0; index < names.length; index++) {
        parsed[names[index] as string] = (schemas[index] as Schema<unknown>).parse(value[index]);
      }
      return parsed as Shape<F>;
    },
    wire: (value) => names.map((name, index) => (schemas[index] as Schema<unknown>).wire(value[name])),
  };
}

/** A constant small number in front of a record tells the variants apart: `[tag, ...fields]`, typed by `type`. */
export function union<V extends Record<string, readonly [tag: number, fields: Fields]>>(variants: V) {
  type Value = { [K in keyof V]: { type: K } & Shape<V[K][1]> }[keyof V];
  const byTag: (readonly [string, string[], Schema<unknown>[]] | undefined)[] = [];
  const byName = new Map<string, readonly [number, string[], Schema<unknown>[]]>();
  for (const [name, [tag, fields]] of Object.entries(variants)) {
    const names = Object.keys(fields);
    const schemas = Object.values(fields);
    byTag[tag] = [name, names, schemas];
    byName.set(name, [tag, names, schemas]);
  }
  const schema: Schema<Value> = {
    parse(value) {
      if (!Array.isArray(value)) return fail("SHAPE_UNION");
      const variant = typeof value[0] === "number" ? byTag[value[0]] : undefined;
      if (!variant) return fail("UNKNOWN_TYPE");
      const [type, names, schemas] = variant;
      if (value.length !== names.length + 1) return fail("SHAPE_RECORD");
      const parsed: Record<string, unknown> = { type };
      for (let index = 0; index < names.length; index++) {
        parsed[names[index] as string] = (schemas[index] as Schema<unknown>).parse(value[index + 1]);
      }
      return parsed as Value;
    },
    wire(value) {
      const [tag, names, schemas] = byName.get(value.type as string) as readonly [number, string[], Schema<unknown>[]];
      const wire: Wire[] = [tag];
      for (let index = 0; index < names.length; index++) {
        wire.push((schemas[index] as Schema<unknown>).wire((value as Record<string, unknown>)[names[index] as string]));
      }
      return wire;
    },
  };
  return schema;
}

export function encode<T>(schema: Schema<T>, value: T): Uint8Array {
  return cbor.encode(schema.wire(value));
}

/** Byte strings in the result are views into `input`. @throws Malformed */
export function decode<T>(schema: Schema<T>, input: Uint8Array): T {
  scan(input);
  let value: unknown;
  try {
    value = cbor.decode(input);
  } catch {
    return fail("CBOR");
  }
  return schema.parse(value);
}

/** Walks the items once without recursion or allocation per item. @throws Malformed */
function scan(input: Uint8Array): void {
  const open = [1];
  let at = 0;
  let items = 0;
  while (open.length > 0) {
    const depth = open.length - 1;
    if (open[depth] === 0) {
      open.pop();
      continue;
    }
    open[depth] = (open[depth] as number) - 1;
    if (++items > ITEMS_MAX) fail("CBOR_ITEMS");
    if (at >= input.length) fail("TRUNCATED");
    const head = input[at++] as number;
    const major = head >> 5;
    if (major === 7) {
      if (head !== 0xf4 && head !== 0xf5 && head !== 0xf6) fail("CBOR_SIMPLE");
      continue;
    }
    if (major === 1 || major === 5 || major === 6) fail("CBOR_TYPE");
    let argument = head & 31;
    if (argument >= 24) {
      const width =
        argument === 24 ? 1 : argument === 25 ? 2 : argument === 26 ? 4 : argument === 27 ? 8 : fail("CBOR_LENGTH");
      if (input.length - at < width) fail("TRUNCATED");
      argument = 0;
      for (let index = 0; index < width; index++) argument = argument * 256 + (input[at++] as number);
      if (argument < (width === 1 ? 24 : width === 2 ? 256 : width === 4 ? 65_536 : 4_294_967_296))
        fail("CBOR_OVERLONG");
    }
    if (major === 2 || major === 3) {
      if (argument > input.length - at) fail("TRUNCATED");
      if (major === 3) scanText(input.subarray(at, at + argument));
      at += argument;
    } else if (major === 4) {
      if (open.length > DEPTH_MAX) fail("CBOR_DEPTH");
      if (argument > input.length - at) fail("TRUNCATED");
      open.push(argument);
    }
  }
  if (at !== input.length) fail("TRAILING_BYTES");
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Invalid UTF-8 would be replaced silently, so that distinct bytes become one text. */
function scanText(input: Uint8Array): void {
  for (let index = 0; index < input.length; index++) {
    if ((input[index] as number) < 128) continue;
    try {
      strict.decode(input);
    } catch {
      fail("CBOR_TEXT");
    }
    return;
  }
}
