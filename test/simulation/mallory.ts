/**
 * A Byzantine client of a simulated world: two SDKs under one identity and one session number, so that two payloads carry
 * the same sequence, on a transport that withholds requests from some replicas, spoils the authenticators of others, and
 * sends old requests again. Nobody waits for its calls; what it does must harm nobody.
 */
import type { Kv } from "../../client/kv.ts";
import { open } from "../../client/open.ts";
import type { Clock, Transport } from "../../client/ports.ts";
import { SessionNumbers } from "../../client/session-numbers.ts";
import { decodeClientFrame, encodeRequestFrame } from "../../protocol/client-frames.ts";
import { isRejection, QuorateError } from "../../protocol/errors.ts";
import { AUTHENTICATOR_BYTES, decodeEnvelope, encodeEnvelope } from "../../protocol/request.ts";
import { identityOf } from "./crypto.ts";
import { WALL_START_MS } from "./machine.ts";
import type { World } from "./world.ts";

export const MALLORY_NAME = "client mallory";
const COPIES = 2;
/** Endpoints that a world must have to spare for it. */
export const MALLORY_ENDPOINTS = COPIES;
const FRAMES_KEPT = 32;
const TIMEOUT_MS = 1_500;
const PAUSE_US = 150_000;

/** Always the same session, unless the replicas have forgotten it. */
class SameNumber extends SessionNumbers {
  override next(_clock: Clock, floor = 0): number {
    return Math.max(WALL_START_MS * 1_000, floor + 1);
  }
}

export class Mallory {
  readonly #world: World;
  readonly #kept: Uint8Array[] = [];
  #values = 0;
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
  }

  start(): void {
    for (let copy = 0; copy < COPIES; copy++) {
      this.#act(copy).catch((error: unknown) => this.#world.scheduler.fail(error));
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  async #act(copy: number): Promise<void> {
    const { scheduler } = this.#world;
    const { random } = scheduler;
    let kv: Kv<string> | null = null;
    while (!this.#stopped) {
      await scheduler.sleep(scheduler.exponential(PAUSE_US));
      try {
        kv ??= await this.#open(copy);
        const value = String(++this.#values);
        // Where rights count, it tries the keys of others as well.
        const elsewhere = this.#world.options.rights && random.chance(0.4);
        const key = `${elsewhere ? "k" : "a/"}${random.below(3)}`;
        if (random.chance(0.2)) await kv.get(key, { ordered: random.chance(0.5) });
        else await kv.put(key, value);
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
        this.#world.trace.count(`mallory: ${error.code}`);
      }
    }
    await kv?.close();
  }

  #open(copy: number): Promise<Kv<string>> {
    const { scheduler, file, crypto } = this.#world;
    const clock: Clock = {
      monotonicMs: () => scheduler.nowUs / 1000,
      wallMs: () => WALL_START_MS + scheduler.nowUs / 1000,
      after: (delayMs, run) => scheduler.after(delayMs * 1000, run),
      turnEnd: (run) => void scheduler.after(0, run),
      random: () => scheduler.random.next(),
    };
    return open<string>({
      cluster: file,
      identity: identityOf(MALLORY_NAME),
      crypto,
      transport: this.#twisted(this.#world.transport(this.#world.options.clients + copy)),
      clock,
      sessionNumbers: new SameNumber(),
      timeoutMs: TIMEOUT_MS,
      signed: scheduler.random.chance(0.2),
    });
  }

  #twisted(transport: Transport): Transport {
    return {
      open: (member, events) => {
        const channel = transport.open(member, events);
        return {
          send: (frame) => {
            for (const twisted of this.#twist(frame, member.id)) channel.send(twisted);
          },
          get queuedBytes() {
            return channel.queuedBytes;
          },
          close: () => channel.close(),
        };
      },
    };
  }

  /** What really goes to `replica` in place of this frame. */
  #twist(frame: Uint8Array, replica: number): Uint8Array[] {
    const { random } = this.#world.scheduler;
    const decoded = decodeClientFrame(frame);
    if (isRejection(decoded) || decoded.type !== "REQUEST") return [frame];
    this.#kept.push(Uint8Array.from(frame));
    if (this.#kept.length > FRAMES_KEPT) this.#kept.shift();
    const roll = random.next();
    if (roll < 0.25) return this.#count("withheld", []);
    if (roll < 0.35) return this.#count("replayed", [frame, random.pick(this.#kept)]);
    if (roll < 0.6) return this.#count("spoiled for others", [this.#spoiled(decoded, (at) => at !== replica)]);
    if (roll < 0.63) return this.#count("spoiled", [this.#spoiled(decoded, () => true)]);
    return [frame];
  }

  #count(kind: string, frames: Uint8Array[]): Uint8Array[] {
    this.#world.trace.count(`byzantine client: ${kind}`);
    return frames;
  }

  /** The same request with an authenticator that is bad at these replicas (by position, which is the id here). */
  #spoiled(
    { envelope, request }: { readonly envelope: Uint8Array; readonly request: Uint8Array },
    at: (position: number) => boolean,
  ): Uint8Array {
    const opened = decodeEnvelope(Uint8Array.from(envelope));
    const { authenticator } = opened;
    if (authenticator.type !== "vector") return encodeRequestFrame(envelope, request);
    const bad = "x".repeat(AUTHENTICATOR_BYTES);
    let macs = "";
    for (let position = 0; position * AUTHENTICATOR_BYTES < authenticator.macs.length; position++) {
      const from = position * AUTHENTICATOR_BYTES;
      macs += at(position) ? bad : authenticator.macs.slice(from, from + AUTHENTICATOR_BYTES);
    }
    return encodeRequestFrame(encodeEnvelope({ ...opened, authenticator: { type: "vector", macs } }), request);
  }
}
