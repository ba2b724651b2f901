/** The minds of the Byzantine replicas of one world: a character each, drawn from the seed, and one guild for all of them. */
import { attackerOf, drawCharacter } from "./byzantine/attacker.ts";
import { Guild } from "./byzantine/guild.ts";
import type { Attacker } from "./contract.ts";
import type { AttackerParts } from "./world.ts";

/** For one run: whoever is made by it knows the others. */
export function liars(): (parts: AttackerParts) => Attacker {
  let guild: Guild | null = null;
  return ({ self, cluster, identity, crypto, random }) => {
    guild ??= new Guild(cluster.view, crypto);
    const sign = crypto.signer(identity.signSeed);
    return attackerOf({ self, sign, guild, random, character: drawCharacter(random, cluster.view.faultModel) });
  };
}
