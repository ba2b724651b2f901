/**
 * What the request engine needs from the world: channels to replicas, time, chance. The Node and browser
 * implementations are `transport-ws.ts` and `clock.ts`; a simulator brings its own, so every retry, time-out and
 * rotation of the engine replays from a seed (docs/protocol.md section 3; ARCHITECTURE.md, "The core's ports").
 */
import type { Member } from "../protocol/view.ts";

/** An open (or opening) connection to one replica, a protocol frame per binary message, in order, lossy only at its end. */
export interface Channel {
  /** Queues one frame. The bytes may be shared with other channels and are never changed. */
  send(frame: Uint8Array): void;
  /** Bytes accepted by `send` that have not left this process. */
  readonly queuedBytes: number;
  /** Closes for good. `onClosed` follows, if it has not been called yet. */
  close(): void;
}

/** What a channel reports. `onClosed` is called exactly once and is the last call. */
export interface ChannelEvents {
  /** One frame. The bytes may be kept: nobody else writes to them. */
  onFrame(bytes: Uint8Array): void;
  onClosed(closed: ChannelClosed): void;
}

/** Why a channel ended: a WebSocket close code (0 when it never opened) and a reason for people. */
export interface ChannelClosed {
  readonly code: number;
  readonly reason: string;
}

/** Opens channels. `open` returns at once; no event is reported before it has returned. */
export interface Transport {
  open(member: Member, events: ChannelEvents): Channel;
}

/** A scheduled call; `cancel` after it ran does nothing. */
export interface Scheduled {
  cancel(): void;
}

/** Time and chance. */
export interface Clock {
  /** Milliseconds that never go back; the origin is arbitrary. For time-outs. */
  monotonicMs(): number;
  /** Milliseconds since 1970. For session numbers. */
  wallMs(): number;
  after(delayMs: number, run: () => void): Scheduled;
  /** Runs after what is ready to run in this turn of the event loop has run: commands issued until then are bundled. */
  turnEnd(run: () => void): void;
  /** A float in [0, 1), for jitter only. */
  random(): number;
}
