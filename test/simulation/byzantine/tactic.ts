/** One way to lie: what it makes of a message on its way out, what it learns, and what it sends unasked. */
import type { Message } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { Outgoing } from "../contract.ts";
import type { Random } from "../random.ts";
import type { Guild } from "./guild.ts";

/** Who lies, with whom, and what draws its choices. */
export interface Liar {
  readonly self: ReplicaId;
  readonly others: readonly ReplicaId[];
  readonly guild: Guild;
  readonly random: Random;
}

export interface Tactic {
  /** Depends on who gets the message: never the same for all. */
  readonly personal?: true;
  /** Null: this message goes on as it is. */
  rewrite?(outgoing: Outgoing): readonly Outgoing[] | null;
  observe?(from: ReplicaId, message: Message): void;
  idle?(): readonly Outgoing[];
}

/** Some of the others, at least one. */
export function someOf({ others, random }: Liar): ReplicaId[] {
  const chosen = others.filter(() => random.chance(0.5));
  return chosen.length > 0 ? chosen : [random.pick(others)];
}

export function sendTo(receivers: readonly ReplicaId[], messages: readonly Message[]): Outgoing[] {
  return receivers.flatMap((to) => messages.map((message) => ({ to, message })));
}
