/** A cluster of which one member fetches a state, and ways for the others to lie. */
import type { Message } from "../../../protocol/messages.ts";
import { History, viewOfSize } from "./history.ts";
import { Peer, type PeerOptions } from "./peer.ts";
import { Run, type RunOptions } from "./run.ts";

export type Setup = Partial<Omit<PeerOptions, "history">>;

/** n members of which the last fetches; `peers[i]` says how member i differs from the usual. */
export function cluster(f: number, setups: readonly Setup[], options: Partial<RunOptions> & { length?: number } = {}) {
  const n = 3 * f + 1;
  const history = new History(viewOfSize(n, f), options.length ?? 400);
  const peers = Array.from({ length: n - 1 }, (_, id) => {
    // Staggered: member 0 has the newest one, and so on down; so member f is the donor.
    const checkpoints = [100 + 20 * (n - id)];
    return new Peer({ id, history, checkpoints, ...setups[id] });
  });
  return { history, peers, run: new Run({ history, self: n - 1, peers, ...options }) };
}

/** Alters one kind of answer. */
export function lying<T extends Message["type"]>(
  type: T,
  alter: (message: Extract<Message, { type: T }>) => Message | null,
) {
  return (message: Message): Message | null =>
    message.type === type ? alter(message as Extract<Message, { type: T }>) : message;
}

export const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, index) => (index === 20 ? byte ^ 1 : byte));
