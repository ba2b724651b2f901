/**
 * Serves checkpoints to replicas that fetch the state (docs/protocol.md section 6): manifests, and chunks read again from the
 * open snapshot. Receivers take turns, each with one request being served and a few waiting; while this replica has requests
 * of clients to serve, all of them together get no more than a bounded rate. What comes beyond is dropped, the asker asks again.
 */
import { copyOf, EMPTY } from "../../protocol/bytes.ts";
import { assert } from "../../protocol/errors.ts";
import { ChunkBuilder } from "../../protocol/image.ts";
import { CHUNK_BYTES_MAX, CHUNKS_MAX } from "../../protocol/limits.ts";
import type { Message, MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { ImageRequest } from "../consensus/contract.ts";
import type { HeldImage, HeldImages } from "./checkpoint-images.ts";
import { KEYS_END } from "./image-builder.ts";
import type { PaceClock } from "./pause.ts";

const RATE_BYTES_PER_SECOND = 24 * 1024 * 1024;
/** Requests of one receiver that wait. */
const WAITING_MAX = 8;
/** Chunks in memory. */
const SERVING_MAX = 2;
/** A receiver whose link holds more than this gets nothing more until it has drained; looked at so often. */
const LINK_BYTES_MAX = CHUNK_BYTES_MAX;
const LINK_LOOK_US = 5_000;

/** Whom a checkpoint is pinned to while a client reads it. */
const NO_REPLICA: ReplicaId = -1;

export interface ImageServerPort {
  /** The installed view and regency, for the answer. */
  place(): { readonly view: number; readonly regency: number };
  send(to: ReplicaId, message: Message): void;
  /** Bytes that wait in the link to this replica. */
  queuedBytes(to: ReplicaId): number;
  /** There are requests of clients to serve. */
  busy(): boolean;
  /** The state cannot be read (QuorateError). */
  failed(error: unknown): void;
}

interface Receiver {
  readonly id: ReplicaId;
  readonly waiting: ImageRequest[];
  serving: boolean;
}

export class ImageServer {
  readonly #images: HeldImages;
  readonly #clock: PaceClock;
  readonly #port: ImageServerPort;
  readonly #rateBytesPerSecond: number;
  /** Whose turn it is comes first. */
  readonly #receivers: Receiver[] = [];
  #serving = 0;
  /** What was sent so far is paid for from here on. */
  #freeUs = 0;
  #timer: (() => void) | null = null;
  #closed = false;
  /** Sent so far. */
  sentBytes = 0;

  constructor(parts: {
    images: HeldImages;
    clock: PaceClock;
    port: ImageServerPort;
    rateBytesPerSecond?: number | undefined;
  }) {
    this.#images = parts.images;
    this.#clock = parts.clock;
    this.#port = parts.port;
    this.#rateBytesPerSecond = parts.rateBytesPerSecond ?? RATE_BYTES_PER_SECOND;
  }

  request(from: ReplicaId, request: ImageRequest): void {
    if (this.#closed) return;
    let receiver = this.#receivers.find(({ id }) => id === from);
    if (!receiver) {
      receiver = { id: from, waiting: [], serving: false };
      this.#receivers.push(receiver);
    }
    const { waiting } = receiver;
    if (waiting.length >= WAITING_MAX || waiting.some((other) => same(other, request))) return;
    waiting.push(request);
    this.#pump();
  }

  /** The answer to somebody who is no replica: read at once, at the pace of whoever asks. */
  read(request: ImageRequest): Promise<MessageOf<"MANIFEST"> | MessageOf<"CHUNK">> {
    return this.#answer(NO_REPLICA, request);
  }

  /** Nothing is sent any more. */
  close(): void {
    this.#closed = true;
    this.#timer?.();
    this.#timer = null;
    this.#receivers.length = 0;
  }

  #pump(): void {
    while (!this.#closed && this.#serving < SERVING_MAX) {
      const ready = this.#receivers.filter(({ waiting, serving }) => waiting.length > 0 && !serving);
      if (ready.length === 0) return;
      const next = ready.find(({ id }) => this.#port.queuedBytes(id) <= LINK_BYTES_MAX);
      const nowUs = this.#clock.nowUs();
      const fromUs = next ? this.#freeUs : nowUs + LINK_LOOK_US;
      if (!next || (nowUs < fromUs && this.#port.busy())) {
        this.#later(fromUs);
        return;
      }
      this.#receivers.push(...this.#receivers.splice(this.#receivers.indexOf(next), 1));
      this.#serve(next, next.waiting.shift() as ImageRequest);
    }
  }

  #later(us: number): void {
    this.#timer ??= this.#clock.at(us, () => {
      this.#timer = null;
      this.#pump();
    });
  }

  #serve(receiver: Receiver, request: ImageRequest): void {
    receiver.serving = true;
    this.#serving += 1;
    this.#answer(receiver.id, request)
      .then((message) => {
        if (!this.#closed) this.#send(receiver.id, message);
      })
      .catch((error: unknown) => {
        if (!this.#closed) this.#port.failed(error);
      })
      .finally(() => {
        receiver.serving = false;
        this.#serving -= 1;
        this.#clock.defer(() => this.#pump());
      });
  }

  #send(to: ReplicaId, message: MessageOf<"MANIFEST"> | MessageOf<"CHUNK">): void {
    const { length } = message.type === "CHUNK" ? message.chunk : message.manifest;
    this.sentBytes += length;
    const nowUs = this.#clock.nowUs();
    // What was sent while nobody else had need of the link is not held against the receivers.
    const fromUs = this.#port.busy() ? Math.max(this.#freeUs, nowUs) : nowUs;
    this.#freeUs = fromUs + (length / this.#rateBytesPerSecond) * 1_000_000;
    this.#port.send(to, message);
  }

  async #answer(to: ReplicaId, request: ImageRequest): Promise<MessageOf<"MANIFEST"> | MessageOf<"CHUNK">> {
    const { instance, root } = request;
    const found = this.#images.find(instance, root);
    const held = found && found.image.header.chunks <= CHUNKS_MAX ? found : null;
    const place = { ...this.#port.place(), instance, root };
    if (request.type === "FETCH_MANIFEST") {
      if (held) this.#images.used(held, to, null);
      return { type: "MANIFEST", ...place, manifest: held?.image.manifest ?? EMPTY };
    }
    const { index } = request;
    if (!held || index >= held.image.firstKeys.length) return { type: "CHUNK", ...place, index, chunk: EMPTY };
    this.#images.used(held, to, index);
    return { type: "CHUNK", ...place, index, chunk: await held.reading(() => readChunk(held, index)) };
  }
}

function same(a: ImageRequest, b: ImageRequest): boolean {
  if (a.instance !== b.instance || a.root !== b.root) return false;
  return (a.type === "FETCH_CHUNK" ? a.index : null) === (b.type === "FETCH_CHUNK" ? b.index : null);
}

/** The chunk exactly as its image was computed. */
async function readChunk({ image, snapshot }: HeldImage, index: number): Promise<Uint8Array> {
  const from = image.firstKeys[index] as string;
  const to = image.firstKeys[index + 1] ?? KEYS_END;
  const builder = new ChunkBuilder();
  for await (const entries of snapshot.chunks({ from, to })) {
    for (const [key, value] of entries) builder.add(key, value);
  }
  const chunk = builder.take();
  assert(chunk, "a chunk of an image holds entries");
  return copyOf(chunk);
}
