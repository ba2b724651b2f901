/**
 * Leaders that order everything valid, and nothing well (docs/protocol.md section 5, "Leaders in turn"): late by just less than
 * would be noticed at once, or without the requests of one client.
 */
import { type Batch, decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import type { KnownBatch } from "./guild.ts";
import type { Liar, Tactic } from "./tactic.ts";
import { twoFaced } from "./tactics-voting.ts";
import type { Proposed } from "./variants.ts";

const LATE_US_MAX = 2_000_000;

/** Each proposal late by the same; or, as the mean hides, every second one by twice that. */
export function slowLeading({ random }: Liar): Tactic {
  const lateUs = 1_000 + random.below(LATE_US_MAX);
  const alternating = random.chance(0.5);
  return {
    rewrite(outgoing) {
      const { message } = outgoing;
      if (message.type !== "PROPOSE") return null;
      if (!alternating) return [{ ...outgoing, delayUs: lateUs }];
      return message.instance % 2 === 0 ? [{ ...outgoing, delayUs: 2 * lateUs }] : null;
    },
  };
}

/** Leaves out whatever the client asks for whose request it saw first. */
export function censoring(liar: Liar): Tactic {
  let victim: Digest | null = null;
  return twoFaced(
    liar,
    (proposed) => {
      const batch = decoded(() => decodeBatch(liar.guild.crypto, proposed.batch));
      if (isRejection(batch)) return null;
      victim ??= batch.requests[0]?.client ?? null;
      return victim === null ? null : without(liar, victim, batch, proposed);
    },
    () => liar.others,
  );
}

function without({ guild }: Liar, victim: Digest, batch: Batch, { envelopes }: Proposed): KnownBatch | null {
  const { instance, timestampMs, requests } = batch;
  const kept = requests.map(({ client }) => client !== victim);
  const left = requests.filter((_, at) => kept[at]).map(({ bytes }) => bytes);
  return guild.learnBatch(
    encodeBatch({ instance, timestampMs, requests: left }),
    envelopes.filter((_, at) => kept[at]),
  );
}
