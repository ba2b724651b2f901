/**
 * What replicas say to each other: one shape per message, (view, regency) in each, and the fixed layouts of what they
 * sign (docs/protocol.md section 4).
 */
import { bytesOf, type Digest, latin1 } from "./bytes.ts";
import { bytes, decode, encode, type Infer, list, nullable, record, type Schema, u32, u53, union } from "./codec.ts";
import { decoded, Malformed, type Rejection } from "./errors.ts";
import type { ImageHeader } from "./image.ts";
import { Writer } from "./layout.ts";
import {
  BATCH_BYTES_MAX,
  BATCH_REQUESTS_MAX,
  CHUNK_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  HISTORY_BATCHES_MAX,
  LINK_BYTES_MAX,
  LINKS_PER_ANSWER_MAX,
  MANIFEST_BYTES_MAX,
  OFFERED_CHECKPOINTS_MAX,
  OFFERED_ROOTS_MAX,
  REPLICAS_MAX,
  REQUEST_BYTES_MAX,
  STOP_CLIENTS_MAX,
} from "./limits.ts";
import { SIGNATURE_BYTES } from "./request.ts";
import { writeTag } from "./view.ts";

export const digest: Schema<Digest> = {
  parse(value) {
    if (!(value instanceof Uint8Array) || value.length !== 32) throw new Malformed("SHAPE_DIGEST");
    return latin1(value);
  },
  wire: (value) => bytesOf(value),
};

const signature = bytes({ min: SIGNATURE_BYTES, max: SIGNATURE_BYTES });
const batch = bytes({ max: BATCH_BYTES_MAX });
const place = { view: u32, regency: u32 };

/**
 * Q signatures on one WRITE statement (view, regency, instance, digest): proves all history below `instance`. In cft mode
 * there are no WRITEs and no votes in it: a member accepted that, which proves as much.
 */
export const certificateSchema = record({
  view: u32,
  regency: u32,
  instance: u53,
  digest,
  votes: list(record({ replica: u32, signature }), { max: REPLICAS_MAX }),
});
export type Certificate = Infer<typeof certificateSchema>;

/** Proves h(to) of a HISTORY answer: the batch digests of to+1 .. certificate.instance, and the certificate. */
const historyProof = record({ links: list(digest, { max: HISTORY_BATCHES_MAX }), certificate: certificateSchema });
export type HistoryProof = Infer<typeof historyProof>;

/**
 * What one replica brings into the synchronization phase of a regency: the write certificate of its newest accept record
 * of this view, or none. "None" is a value of its own, never a number.
 */
const stopData = { record: nullable(certificateSchema), signature };
const stopDataOf = record({ replica: u32, ...stopData });
/** A STOPDATA as SYNC carries it, with its signer. */
export type StopData = Infer<typeof stopDataOf>;

/** A WRITE that somebody else remembers, with its signature; in cft mode an ACCEPT, which has none. */
const voteRecord = record({ regency: u32, instance: u53, digest, signature: bytes({ max: SIGNATURE_BYTES }) });

/** A checkpoint as it is offered: `ImageHeader`. */
export const imageHeaderSchema: Schema<ImageHeader> = record({
  instance: u53,
  digest,
  timestampMs: u53,
  chunks: u32,
  bytes: u53,
  manifest: digest,
});

/** A root with its sender's signature on `rootStatement`. */
const rootFields = { instance: u53, root: digest, signature };
const rootRecord = record(rootFields);
export type SignedRoot = Infer<typeof rootRecord>;

const message = union({
  PROPOSE: [
    1,
    {
      ...place,
      instance: u53,
      batch,
      envelopes: list(bytes({ max: ENVELOPE_BYTES_MAX }), { max: BATCH_REQUESTS_MAX }),
    },
  ],
  WRITE: [2, { ...place, instance: u53, digest, signature }],
  ACCEPT: [3, { ...place, instance: u53, digest }],
  /** `abstainingUntil`: the last instance this replica will not vote in, or 0. */
  STATUS: [4, { ...place, decided: u53, digest, abstainingUntil: u53, signature }],
  FORWARD: [5, { ...place, request: bytes({ max: REQUEST_BYTES_MAX }), envelope: bytes({ max: ENVELOPE_BYTES_MAX }) }],
  FETCH_BATCH: [6, { ...place, instance: u53, digest }],
  BATCH: [7, { ...place, instance: u53, digest, batch }],
  /** Batches `from` to `to`, both included, or as many of them from `from` on as fit an answer. */
  FETCH_HISTORY: [8, { ...place, from: u53, to: u53 }],
  /** `previous` is h(from - 1), so that the answer and its proof stand for themselves. No batches: `from` is not in the log. */
  HISTORY: [
    9,
    {
      ...place,
      from: u53,
      previous: digest,
      batches: list(batch, { max: HISTORY_BATCHES_MAX }),
      proof: nullable(historyProof),
    },
  ],
  /** The sender wants regency `regency`; `named` are clients whose requests it could not prove in a held proposal. */
  STOP: [10, { ...place, named: list(digest, { max: STOP_CLIENTS_MAX }) }],
  STOPDATA: [11, { ...place, ...stopData }],
  /** The PROPOSE of the first instance of `regency`; `envelopes` only of a batch that was freely chosen. */
  SYNC: [
    12,
    {
      ...place,
      stopData: list(stopDataOf, { max: REPLICAS_MAX }),
      batch,
      envelopes: list(bytes({ max: ENVELOPE_BYTES_MAX }), { max: BATCH_REQUESTS_MAX }),
    },
  ],
  /**
   * What can you offer to somebody who lags, and what do you remember of me? `rootsFrom` above 0: I need a root of yours at
   * or after that instance, so take a checkpoint if you have none.
   */
  FETCH_OFFER: [13, { ...place, rootsFrom: u53 }],
  OFFER: [
    14,
    {
      ...place,
      /** The regency the sender asks for, or the installed one. */
      wanted: u32,
      decided: u53,
      /** The newest certificate it holds. */
      newest: nullable(certificateSchema),
      /** The newest WRITE it knows of the asker, or in cft mode the newest ACCEPT. */
      yourWrite: nullable(voteRecord),
      /** The oldest instance of its log, or 0; and roughly the bytes of all of it. */
      logFirst: u53,
      logBytes: u53,
      /** Complete, to be fetched in chunks; newest first. */
      checkpoints: list(imageHeaderSchema, { max: OFFERED_CHECKPOINTS_MAX }),
      /** Of its own states, newest first. */
      roots: list(rootRecord, { max: OFFERED_ROOTS_MAX }),
    },
  ],
  FETCH_MANIFEST: [15, { ...place, instance: u53, root: digest }],
  /** Empty: that checkpoint is not offered any more. */
  MANIFEST: [16, { ...place, instance: u53, root: digest, manifest: bytes({ max: MANIFEST_BYTES_MAX }) }],
  FETCH_CHUNK: [17, { ...place, instance: u53, root: digest, index: u32 }],
  /** Empty: that checkpoint is not offered any more. */
  CHUNK: [18, { ...place, instance: u53, root: digest, index: u32, chunk: bytes({ max: CHUNK_BYTES_MAX }) }],
  /** The sender's state had this root after this instance. */
  ROOT: [19, { ...place, ...rootFields }],
  /** The ACCEPT for a batch that ends the view: Q of them make the link to the next one. */
  SIGNED_ACCEPT: [20, { ...place, instance: u53, digest, signature }],
  /** Which views come after `view`? */
  FETCH_LINKS: [21, { ...place }],
  /** Links from the view asked about on, in order; none when there are none. */
  LINKS: [22, { ...place, links: list(bytes({ max: LINK_BYTES_MAX }), { max: LINKS_PER_ANSWER_MAX }) }],
});

export type Message = Infer<typeof message>;
export type MessageType = Message["type"];
export type MessageOf<T extends MessageType> = Extract<Message, { type: T }>;

export function encodeMessage(value: Message): Uint8Array {
  return encode(message, value);
}

/** Byte strings in the message are views into `input`. */
export function decodeMessage(input: Uint8Array): Message | Rejection {
  return decoded(() => decode(message, input));
}

/** What a WRITE signs, and an ACCEPT that is signed. */
export interface WriteStatement {
  readonly view: number;
  readonly regency: number;
  readonly instance: number;
  readonly digest: Digest;
}

export function writeStatement(cluster: Digest, statement: WriteStatement): Uint8Array {
  const writer = writeTag(new Writer(128), "quorate/write/1", cluster).u32(statement.view).u32(statement.regency);
  return writer.u53(statement.instance).rawLatin1(statement.digest).finish();
}

/** What an ACCEPT of a batch with a RECONFIGURE signs: a link of the chain of views is made of these. */
export function acceptStatement(cluster: Digest, statement: WriteStatement): Uint8Array {
  const writer = writeTag(new Writer(128), "quorate/accept/1", cluster).u32(statement.view).u32(statement.regency);
  return writer.u53(statement.instance).rawLatin1(statement.digest).finish();
}

/** What a STATUS signs. */
export interface StatusStatement {
  readonly view: number;
  readonly regency: number;
  readonly decided: number;
  readonly digest: Digest;
  readonly abstainingUntil: number;
}

export function statusStatement(cluster: Digest, statement: StatusStatement): Uint8Array {
  const writer = writeTag(new Writer(128), "quorate/status/1", cluster).u32(statement.view).u32(statement.regency);
  return writer.u53(statement.decided).rawLatin1(statement.digest).u53(statement.abstainingUntil).finish();
}

/** What a STOPDATA signs: the whole record, its certificate included. */
export function stopDataStatement(
  cluster: Digest,
  place: { readonly view: number; readonly regency: number; readonly replica: number },
  record: Certificate | null,
): Uint8Array {
  const size = 160 + (record ? record.votes.length * (4 + SIGNATURE_BYTES) : 0);
  const writer = writeTag(new Writer(size), "quorate/stopdata/1", cluster).u32(place.view).u32(place.regency);
  writer.u32(place.replica).u32(record ? 1 : 0);
  if (record) {
    writer.u32(record.view).u32(record.regency).u53(record.instance).rawLatin1(record.digest).u32(record.votes.length);
    for (const vote of record.votes) writer.u32(vote.replica).raw(vote.signature);
  }
  return writer.finish();
}
