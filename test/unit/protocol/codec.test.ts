import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import { bytesOf, latin1 } from "../../../protocol/bytes.ts";
import { decodeClientFrame, decodeGatewayFrame } from "../../../protocol/client-frames.ts";
import { decode, encode, list, record, u32, u53 } from "../../../protocol/codec.ts";
import { decodeCommand, decodeResult, encodeCommand, encodeResult } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection, Malformed } from "../../../protocol/errors.ts";
import { Reader, Writer } from "../../../protocol/layout.ts";
import { decodeMessage, encodeMessage, type Message } from "../../../protocol/messages.ts";
import {
  decodeEnvelope,
  decodeRequest,
  encodeEnvelope,
  encodeRequest,
  REQUEST_KINDS,
} from "../../../protocol/request.ts";

const bytes = (max: number) => fc.uint8Array({ maxLength: max });
const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(latin1);
const signature = fc.uint8Array({ minLength: 64, maxLength: 64 });
const small = fc.nat({ max: 0xffff_ffff });
const whole = fc.maxSafeNat();
const place = { view: small, regency: small };

const certificate = fc.record({
  ...place,
  instance: whole,
  digest,
  votes: fc.array(fc.record({ replica: small, signature }), { maxLength: 4 }),
});

const messages: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    type: fc.constant("PROPOSE" as const),
    ...place,
    instance: whole,
    batch: bytes(80),
    envelopes: fc.array(bytes(40), { maxLength: 4 }),
  }),
  fc.record({ type: fc.constant("WRITE" as const), ...place, instance: whole, digest, signature }),
  fc.record({ type: fc.constant("ACCEPT" as const), ...place, instance: whole, digest }),
  fc.record({
    type: fc.constant("STATUS" as const),
    ...place,
    decided: whole,
    digest,
    abstainingUntil: whole,
    signature,
  }),
  fc.record({ type: fc.constant("FORWARD" as const), ...place, request: bytes(80), envelope: bytes(40) }),
  fc.record({ type: fc.constant("FETCH_BATCH" as const), ...place, instance: whole, digest }),
  fc.record({ type: fc.constant("BATCH" as const), ...place, instance: whole, digest, batch: bytes(80) }),
  fc.record({ type: fc.constant("FETCH_HISTORY" as const), ...place, from: whole, to: whole }),
  fc.record({
    type: fc.constant("HISTORY" as const),
    ...place,
    from: whole,
    previous: digest,
    batches: fc.array(bytes(40), { maxLength: 3 }),
    proof: fc.option(fc.record({ links: fc.array(digest, { maxLength: 3 }), certificate })),
  }),
  fc.record({ type: fc.constant("FETCH_OFFER" as const), ...place, rootsFrom: whole }),
  fc.record({
    type: fc.constant("OFFER" as const),
    ...place,
    wanted: small,
    decided: whole,
    newest: fc.option(certificate),
    yourWrite: fc.option(fc.record({ regency: small, instance: whole, digest, signature })),
    logFirst: whole,
    logBytes: whole,
    checkpoints: fc.array(
      fc.record({ instance: whole, digest, timestampMs: whole, chunks: small, bytes: whole, manifest: digest }),
      { maxLength: 3 },
    ),
    roots: fc.array(fc.record({ instance: whole, root: digest, signature }), { maxLength: 3 }),
  }),
  fc.record({ type: fc.constant("FETCH_MANIFEST" as const), ...place, instance: whole, root: digest }),
  fc.record({ type: fc.constant("MANIFEST" as const), ...place, instance: whole, root: digest, manifest: bytes(80) }),
  fc.record({ type: fc.constant("FETCH_CHUNK" as const), ...place, instance: whole, root: digest, index: small }),
  fc.record({
    type: fc.constant("CHUNK" as const),
    ...place,
    instance: whole,
    root: digest,
    index: small,
    chunk: bytes(80),
  }),
  fc.record({ type: fc.constant("ROOT" as const), ...place, instance: whole, root: digest, signature }),
);

/** Nested byte strings come back as views or Buffers: compare contents. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("hex")}`;
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
  return value;
}

describe("messages between replicas", () => {
  it("decode after encode is identity", () => {
    fc.assert(
      fc.property(messages, (message) => {
        expect(plain(decodeMessage(encodeMessage(message)))).toEqual(plain(message));
      }),
    );
  });

  it("accepted bytes re-encode to themselves, one byte changed or not", () => {
    fc.assert(
      fc.property(messages, fc.nat(), fc.nat({ max: 255 }), (message, at, byte) => {
        const input = Uint8Array.from(encodeMessage(message));
        input[at % input.length] = byte;
        const decoded = decodeMessage(input);
        if (!isRejection(decoded)) expect(plain(encodeMessage(decoded))).toEqual(plain(input));
      }),
      { numRuns: 2_000 },
    );
  });

  it("random bytes are a Rejection, never an exception", () => {
    fc.assert(
      fc.property(bytes(300), (input) => void decodeMessage(input)),
      { numRuns: 5_000 },
    );
    fc.assert(
      fc.property(bytes(300), (input) => void decodeClientFrame(input)),
      { numRuns: 2_000 },
    );
    fc.assert(
      fc.property(bytes(300), (input) => void decodeGatewayFrame(input)),
      { numRuns: 2_000 },
    );
  });
});

describe("CBOR limits", () => {
  const refused = (input: readonly number[], code: string): void => {
    expect(() => decode(list(u32, { max: 100 }), new Uint8Array(input))).toThrow(new Malformed(code));
  };

  it("one encoding per value: no long forms, tags, maps, floats or indefinite lengths", () => {
    refused([0x81, 0x18, 0x05], "CBOR_OVERLONG");
    refused([0x98, 0x01, 0x05], "CBOR_OVERLONG");
    refused([0x81, 0xc2, 0x41, 0x01], "CBOR_TYPE");
    refused([0xa1, 0x01, 0x01], "CBOR_TYPE");
    refused([0x81, 0xf9, 0x3c, 0x00], "CBOR_SIMPLE");
    refused([0x9f, 0x01, 0xff], "CBOR_LENGTH");
    refused([0x81, 0x20], "CBOR_TYPE");
    refused([0x81, 0x01, 0x01], "TRAILING_BYTES");
    refused([0x82, 0x01], "TRUNCATED");
    refused([0x81, 0x62, 0xff, 0xff], "CBOR_TEXT");
  });

  it("hostile nesting and counts are refused without work", () => {
    refused(new Array(10_000).fill(0x81), "CBOR_DEPTH");
    refused([0x9a, 0xff, 0xff, 0xff, 0xff], "TRUNCATED");
    refused([0x9f, ...new Array(1_000).fill(0x9f)], "CBOR_LENGTH");
    const million = new Uint8Array(1_000_005);
    million.set([0x9a, 0x00, 0x0f, 0x42, 0x40]);
    expect(() => decode(list(u32, { max: 2_000_000 }), million)).toThrow(new Malformed("CBOR_ITEMS"));
  });

  it("whole numbers up to 2^53 - 1 survive; above is refused", () => {
    const schema = record({ a: u53 });
    fc.assert(
      fc.property(whole, (a) => {
        expect(decode(schema, encode(schema, { a }))).toEqual({ a });
      }),
    );
    for (const a of [0, 23, 24, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER]) {
      expect(decode(schema, encode(schema, { a }))).toEqual({ a });
    }
    expect(() => decode(schema, new Uint8Array([0x81, 0x1b, 0x00, 0x20, 0, 0, 0, 0, 0, 0]))).toThrow(
      new Malformed("SHAPE_U53"),
    );
  });
});

describe("fixed layouts", () => {
  it("a writer that outgrows its buffer loses nothing", () => {
    for (let length = 0; length < 40; length++) {
      const writer = new Writer(1);
      for (let index = 0; index < length; index++)
        writer
          .u8(index)
          .u32(index)
          .u53(index)
          .rawLatin1("\u00ff")
          .bytes(new Uint8Array([index]));
      const reader = new Reader(writer.finish());
      for (let index = 0; index < length; index++) {
        expect([reader.u8(), reader.u32(), reader.u53(), reader.rawLatin1(1), ...reader.bytes(1)]).toEqual([
          index,
          index,
          index,
          "\u00ff",
          index,
        ]);
      }
      reader.end();
    }
  });

  it("u53 carries the whole range and refuses more", () => {
    fc.assert(
      fc.property(whole, (value) => {
        expect(new Reader(new Writer().u53(value).finish()).u53()).toBe(value);
      }),
    );
    expect(() => new Reader(new Uint8Array([0, 0x20, 0, 0, 0, 0, 0, 0])).u53()).toThrow(new Malformed("NUMBER_RANGE"));
  });

  const requests = fc
    .record({
      cluster: digest,
      client: digest,
      session: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      kind: fc.constantFrom(...REQUEST_KINDS),
      deadlineMs: whole,
      commands: fc.array(bytes(40), { minLength: 1, maxLength: 5 }),
    })
    .map((request) => ({
      ...request,
      ackedBelow: 1,
      commands:
        request.kind === "resolve" || request.kind === "administer" ? request.commands.slice(0, 1) : request.commands,
    }));

  it("requests: decode after encode is identity, accepted bytes re-encode to themselves", () => {
    fc.assert(
      fc.property(requests, fc.nat(), fc.nat({ max: 255 }), (request, at, byte) => {
        const encoded = encodeRequest(request);
        const decoded = decodeRequest(nodeCrypto, encoded);
        expect(plain(decoded)).toMatchObject(plain(request) as object);
        const changed = Uint8Array.from(encoded);
        changed[at % changed.length] = byte;
        try {
          expect(plain(encodeRequest(decodeRequest(nodeCrypto, changed)))).toEqual(plain(changed));
        } catch (error) {
          expect(error).toBeInstanceOf(Malformed);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("a request that acknowledges above its own sequence is malformed", () => {
    const [request] = fc.sample(requests, { numRuns: 1, seed: 1 });
    if (!request) throw new Error("no sample");
    expect(() => decodeRequest(nodeCrypto, encodeRequest({ ...request, sequence: 4, ackedBelow: 5 }))).toThrow(
      new Malformed("REQUEST_ACKED"),
    );
    expect(() => decodeRequest(nodeCrypto, encodeRequest({ ...request, sequence: 0, ackedBelow: 0 }))).toThrow(
      new Malformed("REQUEST_NUMBER"),
    );
  });

  it("envelopes survive both ways, with and without keys, vector or signature", () => {
    const mac = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(latin1);
    const envelopes = fc.record({
      view: small,
      replier: small,
      keys: fc.option(fc.uint8Array({ minLength: 64, maxLength: 64 })),
      authenticator: fc.oneof(
        fc.record({
          type: fc.constant("vector" as const),
          macs: fc.array(mac, { minLength: 1, maxLength: 10 }).map((entries) => entries.join("")),
        }),
        fc.record({ type: fc.constant("signature" as const), signature, mac }),
      ),
    });
    fc.assert(
      fc.property(envelopes, (envelope) => {
        expect(plain(decodeEnvelope(encodeEnvelope(envelope)))).toEqual(plain(envelope));
      }),
    );
  });

  it("batches refuse a (client, session, sequence) twice, unordered requests and trailing bytes", () => {
    const [request] = fc.sample(requests, { numRuns: 1, seed: 2 });
    if (!request) throw new Error("no sample");
    const ordered = encodeRequest({ ...request, kind: "ordered" });
    const batch = (list: readonly Uint8Array[]): Uint8Array =>
      encodeBatch({ instance: 3, timestampMs: 5, requests: list });
    expect(decodeBatch(nodeCrypto, batch([ordered]))).toMatchObject({ instance: 3, timestampMs: 5 });
    const other = encodeRequest({ ...request, kind: "ordered", deadlineMs: request.deadlineMs === 1 ? 2 : 1 });
    expect(() => decodeBatch(nodeCrypto, batch([ordered, other]))).toThrow(new Malformed("BATCH_DUPLICATE"));
    const read = encodeRequest({ ...request, kind: "unordered" });
    expect(() => decodeBatch(nodeCrypto, batch([read]))).toThrow(new Malformed("BATCH_UNORDERED"));
    expect(() => decodeBatch(nodeCrypto, new Uint8Array([...batch([ordered]), 0]))).toThrow(
      new Malformed("TRAILING_BYTES"),
    );
  });
});

describe("commands and results", () => {
  it("survive both ways", () => {
    const commands = fc.oneof(
      fc.record({ type: fc.constant("put" as const), key: bytes(20), value: bytes(50), ifRevision: fc.option(whole) }),
      fc.record({ type: fc.constant("get" as const), key: bytes(20) }),
      fc.record({ type: fc.constant("delete" as const), key: bytes(20), ifRevision: fc.option(whole) }),
      fc.record({ type: fc.constant("cas" as const), key: bytes(20), expect: whole, value: bytes(20) }),
      fc.record({
        type: fc.constant("range" as const),
        from: bytes(9),
        to: fc.option(bytes(9)),
        limit: small,
        reverse: fc.boolean(),
        keysOnly: fc.boolean(),
      }),
    );
    fc.assert(
      fc.property(commands, (command) => {
        expect(plain(decodeCommand(encodeCommand(command)))).toEqual(plain(command));
      }),
    );
    const result = {
      type: "found" as const,
      value: bytesOf("\u00ff\u0000"),
      createRevision: 1,
      modRevision: 2 ** 40,
      version: 3,
    };
    expect(plain(decodeResult(encodeResult(result)))).toEqual(plain(result));
  });
});
