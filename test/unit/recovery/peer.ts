/** A member that serves a history as a correct replica does, unless a test has it lie. */
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import { crypto, type History, type Image, signedRoot, signedStatus } from "./history.ts";

export interface PeerOptions {
  readonly id: number;
  readonly history: History;
  /** Instances of its checkpoints, newest first; roots are those of the checkpoints and `roots`. */
  checkpoints?: number[];
  roots?: number[];
  logFirst?: number;
  height?: number;
  down?: boolean;
  /** What its state has beyond the right one. */
  extra?: Record<string, string>;
  /** The same of its roots alone. */
  rootExtra?: Record<string, string>;
  /** Takes no checkpoint when asked for a root. */
  neverTakes?: boolean;
  /** How far above the truth it says its checkpoints stand. */
  heightLie?: number;
  /** Alters or swallows what it sends. */
  lie?: (message: Message) => Message | null;
}

const BATCHES_PER_ANSWER = 100;

export class Peer {
  readonly options: PeerOptions;
  checkpoints: number[];
  roots: number[];
  readonly asked: Message[] = [];

  constructor(options: PeerOptions) {
    this.options = options;
    this.checkpoints = options.checkpoints ?? [];
    this.roots = [...new Set([...this.checkpoints, ...(options.roots ?? [])])].sort((a, b) => b - a);
  }

  get id(): number {
    return this.options.id;
  }

  get height(): number {
    return this.options.height ?? this.options.history.length;
  }

  count(type: Message["type"]): number {
    return this.asked.filter((message) => message.type === type).length;
  }

  image(instance: number): Image {
    return this.options.history.image(instance, this.options.extra);
  }

  rootAt(instance: number): string {
    return this.options.history.image(instance, this.options.rootExtra ?? this.options.extra).root;
  }

  answer(message: Message): Message | null {
    if (this.options.down) return null;
    this.asked.push(message);
    const answer = this.#answer(message);
    return answer && this.options.lie ? this.options.lie(answer) : answer;
  }

  status(): Message {
    return signedStatus(this.id, this.height, this.options.history.digest(this.height));
  }

  #answer(message: Message): Message | null {
    const place = { view: 0, regency: 3 };
    switch (message.type) {
      case "FETCH_OFFER":
        return this.#offer(message);
      case "FETCH_MANIFEST": {
        const { instance, root } = message;
        const at = instance - (this.options.heightLie ?? 0);
        const { manifest } = this.image(at);
        const offered = this.checkpoints.includes(at);
        return { type: "MANIFEST", ...place, instance, root, manifest: offered ? manifest : new Uint8Array(0) };
      }
      case "FETCH_CHUNK": {
        const { instance, root, index } = message;
        const at = instance - (this.options.heightLie ?? 0);
        const chunk = this.checkpoints.includes(at) ? this.image(at).chunks[index] : undefined;
        return { type: "CHUNK", ...place, instance, root, index, chunk: chunk ?? new Uint8Array(0) };
      }
      case "FETCH_HISTORY":
        return this.#log(message);
      default:
        return null;
    }
  }

  #offer({ rootsFrom }: MessageOf<"FETCH_OFFER">): Message {
    const { history, neverTakes, logFirst = 1 } = this.options;
    const lacks = !this.roots.some((instance) => instance >= rootsFrom);
    if (rootsFrom > 0 && lacks && !neverTakes) {
      this.checkpoints = [this.height, ...this.checkpoints].slice(0, 2);
      this.roots = [this.height, ...this.roots];
    }
    return {
      type: "OFFER",
      view: 0,
      regency: 3,
      wanted: 3,
      decided: this.height,
      newest: this.height > 0 ? history.certificate(this.height) : null,
      yourWrite: null,
      logFirst,
      logBytes: 1000,
      checkpoints: this.checkpoints.map((instance) => {
        const { header } = this.image(instance);
        return { ...header, instance: instance + (this.options.heightLie ?? 0) };
      }),
      roots: this.roots.map((instance) => signedRoot(this.id, instance, this.rootAt(instance))),
    };
  }

  #log({ from, to }: MessageOf<"FETCH_HISTORY">): Message {
    const { history, logFirst = 1 } = this.options;
    const answer = { type: "HISTORY", view: 0, regency: 3, from } as const;
    if (from < logFirst || from > this.height) {
      return { ...answer, previous: history.digest(0), batches: [], proof: null };
    }
    const last = Math.min(to, from + BATCHES_PER_ANSWER - 1, this.height);
    const batches = Array.from({ length: last - from + 1 }, (_, index) => history.batch(from + index));
    const beyond = last < this.height;
    const certificate = history.certificate(beyond ? last + 1 : last);
    const links = beyond ? [crypto.sha256(history.batch(last + 1))] : [];
    return { ...answer, previous: history.digest(from - 1), batches, proof: { links, certificate } };
  }
}
