/**
 * What the event loop and a worker say to each other: many requests in one message of a few ArrayBuffers, handed over and handed
 * back with the answers, never copied. A message per request would cost more than the work it moves. Both ends are ours: a buffer
 * that does not decode is a bug.
 */
import { type ByteBuffer, bufferOver, type Digest } from "../../protocol/bytes.ts";
import { assertNever } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../../protocol/limits.ts";

/** One request on its way. `keys`: the 64 bytes of its client's public keys, or none where they are not known. */
export interface Raw {
  readonly keys: Uint8Array;
  readonly envelope: Uint8Array;
  readonly request: Uint8Array;
}

/** What a worker says of one request: its digest is all that the event loop does not have. */
export type Answer =
  | { readonly type: "authentic" | "unproven" | "forged"; readonly digest: Digest }
  | { readonly type: "malformed"; readonly code: string };

/** The answers to all requests of a message, in its order, and its buffers again. */
export interface Answered {
  readonly answers: ArrayBuffer;
  readonly buffers: ArrayBuffer[];
}

const ANSWERS = ["authentic", "unproven", "forged", "malformed"] as const;
const HEADER_BYTES = 8;
const LENGTHS_BYTES = 12;

/** @returns an ArrayBuffer of its own, to be transferred. */
export function encodeRaw(position: number, requests: readonly Raw[]): ArrayBuffer {
  let length = HEADER_BYTES;
  for (const { keys, envelope, request } of requests) {
    length += LENGTHS_BYTES + keys.length + envelope.length + request.length;
  }
  const buffer = new ArrayBuffer(length);
  const bytes = bufferOver(new Uint8Array(buffer));
  let at = 0;
  const put = (part: Uint8Array): void => {
    writeU32(bytes, at, part.length);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  };
  writeU32(bytes, 0, position);
  writeU32(bytes, 4, requests.length);
  at = HEADER_BYTES;
  for (const { keys, envelope, request } of requests) {
    put(keys);
    put(envelope);
    put(request);
  }
  return buffer;
}

function writeU32(bytes: ByteBuffer, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Views into `buffer`. */
export function decodeRaw(buffer: ArrayBuffer): { position: number; requests: Raw[] } {
  const reader = new Reader(new Uint8Array(buffer));
  const position = reader.u32();
  const requests: Raw[] = [];
  for (let left = reader.u32(); left > 0; left--) {
    const keys = reader.bytes(CLIENT_FRAME_BYTES_MAX);
    const envelope = reader.bytes(CLIENT_FRAME_BYTES_MAX);
    requests.push({ keys, envelope, request: reader.bytes(CLIENT_FRAME_BYTES_MAX) });
  }
  reader.end();
  return { position, requests };
}

const writer = new Writer(4 * 1024);

/** @returns an ArrayBuffer of its own, to be transferred. */
export function encodeAnswers(answers: readonly Answer[]): ArrayBuffer {
  writer.reset();
  for (const answer of answers) {
    writer.u8(ANSWERS.indexOf(answer.type));
    if (answer.type === "malformed") writer.u8(answer.code.length).rawLatin1(answer.code);
    else writer.rawLatin1(answer.digest);
  }
  const bytes = writer.view();
  const buffer = new ArrayBuffer(bytes.length);
  new Uint8Array(buffer).set(bytes);
  return buffer;
}

export function decodeAnswers(buffer: ArrayBuffer): Answer[] {
  const reader = new Reader(new Uint8Array(buffer));
  const answers: Answer[] = [];
  while (reader.left > 0) {
    const type = ANSWERS[reader.u8()];
    switch (type) {
      case "authentic":
      case "unproven":
      case "forged":
        answers.push({ type, digest: reader.rawLatin1(32) });
        break;
      case "malformed":
        answers.push({ type, code: reader.rawLatin1(reader.u8()) });
        break;
      case undefined:
        throw new RangeError("an answer of no known type");
      default:
        assertNever(type);
    }
  }
  return answers;
}
