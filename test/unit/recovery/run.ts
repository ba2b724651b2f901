/** Drives a pure `StateTransfer` against peers, in virtual time, with a staging area that is a map. */
import type { Digest } from "../../../protocol/bytes.ts";
import { decodeChunk } from "../../../protocol/image.ts";
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import { StateTransfer } from "../../../server/recovery/state-transfer.ts";
import type { TransferEffect, TransferInput } from "../../../server/recovery/transfer-contract.ts";
import { apply, crypto, type Entries, type History, imageOf } from "./history.ts";
import type { Peer } from "./peer.ts";

const LATENCY_US = 1_000;
const TICK_US = 100_000;

type Chunk = { readonly bytes: number; readonly entries: readonly (readonly [string, Uint8Array])[] };

export interface RunOptions {
  readonly history: History;
  readonly self: number;
  readonly peers: readonly Peer[];
  readonly position?: number;
  /** The own journal reaches down to the own state. */
  readonly optional?: boolean;
  readonly held?: Map<Digest, Chunk>;
  readonly logBufferBytesMax?: number;
  /** No STATUS is heard from anybody. */
  readonly withoutStatus?: boolean;
}

export class Run {
  readonly transfer: StateTransfer;
  readonly effects: TransferEffect[] = [];
  readonly chunks: Map<Digest, Chunk>;
  readonly #options: RunOptions;
  nowUs = 0;
  #due: { readonly atUs: number; readonly run: () => void }[] = [];
  #state: Entries | null = null;
  #place = { instance: 0, digest: "" as Digest, timestampMs: 0 };
  accepted: Extract<TransferEffect, { type: "accepted" }> | null = null;

  constructor(options: RunOptions) {
    this.#options = options;
    const { history, self, logBufferBytesMax } = options;
    this.chunks = options.held ?? new Map();
    const bound = logBufferBytesMax === undefined ? {} : { logBufferBytesMax };
    this.transfer = new StateTransfer({
      view: history.view,
      viewAt: () => history.view,
      genesis: history.view,
      self,
      crypto,
      ...bound,
    });
    const { optional = false, position = 0 } = options;
    this.input({ type: "started", optional, nowUs: 0, instance: position, held: this.#held() });
  }

  /** Runs until accepted, or for so long; `each` is called at every tick. */
  until(seconds: number, each: (run: Run) => void = () => {}): this {
    const endUs = this.nowUs + seconds * 1_000_000;
    let tickUs = this.nowUs;
    while (!this.accepted && this.nowUs < endUs) {
      const next = this.#due[0];
      if (next && next.atUs <= tickUs) {
        this.#due.shift();
        this.nowUs = next.atUs;
        next.run();
        continue;
      }
      this.nowUs = tickUs;
      tickUs += TICK_US;
      each(this);
      if (!this.#options.withoutStatus && tickUs % 300_000 === 0) this.#hearStatus();
      this.input({ type: "tick", nowUs: this.nowUs });
    }
    return this;
  }

  input(input: TransferInput): void {
    for (const effect of this.transfer.step(input)) this.#perform(effect);
  }

  of<T extends TransferEffect["type"]>(type: T): Extract<TransferEffect, { type: T }>[] {
    return this.effects.filter((effect) => effect.type === type) as Extract<TransferEffect, { type: T }>[];
  }

  get donors(): number[] {
    return this.of("chosen").map((effect) => effect.donor);
  }

  get dropped(): string[] {
    return this.of("dropped").map(({ donor, code }) => `${donor} ${code}`);
  }

  get blamed(): string[] {
    return [...new Set(this.of("blame").map(({ replica, code }) => `${replica} ${code}`))];
  }

  sent<T extends Message["type"]>(type: T): { to: number; message: MessageOf<T> }[] {
    return this.of("send").flatMap(({ to, message }) =>
      message.type === type ? [{ to, message: message as MessageOf<T> }] : [],
    );
  }

  /** True when the staged state is the right one of the accepted place. */
  get right(): boolean {
    if (!this.accepted || !this.#state) return false;
    const { history } = this.#options;
    const { instance, digest } = this.accepted.place;
    const image = imageOf(history.view, this.#place, this.#state);
    return (
      instance === this.#place.instance &&
      digest === history.digest(instance) &&
      image.root === rightRoot(history, instance)
    );
  }

  /** True when the staged state becomes the right one by executing the batch of the next instance. */
  rightAfter(batch: Uint8Array): boolean {
    const { history } = this.#options;
    const instance = this.#place.instance + 1;
    const state = new Map(this.#state);
    apply(state, batch);
    const place = { instance, digest: history.digest(instance), timestampMs: 1000 + instance };
    return imageOf(history.view, place, state).root === rightRoot(history, instance);
  }

  #held(): Map<Digest, number> {
    return new Map([...this.chunks].map(([digest, { bytes }]) => [digest, bytes]));
  }

  #later(run: () => void): void {
    this.#due.push({ atUs: this.nowUs + LATENCY_US, run });
  }

  #hearStatus(): void {
    for (const peer of this.#options.peers) if (!peer.options.down) this.deliver(peer.id, peer.status());
  }

  deliver(from: number, message: Message): void {
    this.#later(() => this.input({ type: "message", from, message }));
  }

  #perform(effect: TransferEffect): void {
    this.effects.push(effect);
    switch (effect.type) {
      case "send": {
        const peer = this.#options.peers.find(({ id }) => id === effect.to);
        this.#later(() => {
          const answer = peer?.answer(effect.message);
          if (answer) this.deliver(effect.to, answer);
        });
        return;
      }
      case "verify":
        this.#later(() => {
          const valid = effect.checks.map((check) => crypto.verify(check.publicKey, check.statement, check.signature));
          this.input({ type: "verified", ticket: effect.ticket, valid });
        });
        return;
      case "retain":
        this.#later(() => {
          for (const digest of [...this.chunks.keys()]) if (!effect.digests.has(digest)) this.chunks.delete(digest);
        });
        return;
      case "stage":
        this.#later(() => {
          for (const { digest, bytes, entries } of effect.chunks) this.chunks.set(digest, { bytes, entries });
          this.input({ type: "staged", digests: effect.chunks.map((chunk) => chunk.digest) });
        });
        return;
      case "complete":
        this.#later(() => {
          this.#place = effect.place;
          this.#state = new Map([...this.chunks.values()].flatMap((chunk) => chunk.entries));
          this.input({ type: "completed" });
        });
        return;
      case "replay":
        this.#later(() => this.#replay(effect));
        return;
      case "computeRoot":
        this.#later(() => {
          const { root } = imageOf(this.#options.history.view, this.#place, this.#state as Entries);
          this.input({ type: "root", instance: effect.instance, root });
        });
        return;
      case "try":
        this.#later(() => this.#tryOut(effect));
        return;
      case "discard":
        this.#later(() => {
          this.#state = null;
          this.input({ type: "discarded", held: this.#held() });
        });
        return;
      case "accepted":
        this.accepted = effect;
        return;
      default:
    }
  }

  #tryOut({ batch }: Extract<TransferEffect, { type: "try" }>): void {
    const { instance, digest, bytes } = batch;
    const state = new Map(this.#state);
    let root: Digest | null = null;
    try {
      apply(state, bytes);
      root = imageOf(this.#options.history.view, { instance, digest, timestampMs: 1000 + instance }, state).root;
    } catch {
      // What is no batch cannot be executed.
    }
    this.input({ type: "tried", instance, root });
  }

  #replay({ batches }: Extract<TransferEffect, { type: "replay" }>): void {
    for (const { instance, digest, bytes } of batches) {
      if (instance !== this.#place.instance + 1) throw new Error(`${instance} after ${this.#place.instance}`);
      if (this.#state) apply(this.#state, bytes);
      this.#place = { instance, digest, timestampMs: 1000 + instance };
    }
    this.input({ type: "replayed", instance: this.#place.instance });
  }
}

function rightRoot(history: History, instance: number): Digest {
  return history.image(instance).root;
}

/** Chunks of an image as a staging area holds them. */
export function heldChunks(chunks: readonly Uint8Array[]): Map<Digest, Chunk> {
  return new Map(chunks.map((chunk) => [crypto.sha256(chunk), { bytes: chunk.length, entries: decodeChunk(chunk) }]));
}
