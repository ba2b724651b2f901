/** The id and the address of a replica that is to join, refused when no view after the newest one known could have it there. */
import { addressUsed } from "../../protocol/next-view.ts";
import type { Address } from "../../protocol/reconfiguration.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import { usageError } from "../exit.ts";

export interface WantedPlace {
  /** By default the lowest that was never used. */
  readonly id: ReplicaId | undefined;
  readonly address: Address;
  /** The member whose place it takes, and whose address it may have. */
  readonly replaces: ReplicaId | undefined;
}

/** Its id. @throws CommandExit (usage) */
export function placeIn(view: View, { id = view.idsBelow, address, replaces }: WantedPlace): ReplicaId {
  if (id < view.idsBelow) {
    throw usageError(`--id ${id}: ids below ${view.idsBelow} were given before and never return; leave --id out`);
  }
  if (replaces !== undefined && !memberOf(view, replaces)) {
    const ids = view.members.map((member) => member.id).join(", ");
    throw usageError(`--replaces ${replaces}: it is no member; members are ${ids}`);
  }
  const inTheWay = view.members.find((member) => member.id !== replaces && addressUsed([member], address));
  if (!inTheWay) return id;
  const { host, clientPort, peerPort, adminPort } = inTheWay;
  const why = `replica ${inTheWay.id} listens at ${host} on ${clientPort}, ${peerPort}, ${adminPort}`;
  throw usageError(`${why}; choose other ports with --base-port, or say --replaces ${inTheWay.id} to take its place`);
}
