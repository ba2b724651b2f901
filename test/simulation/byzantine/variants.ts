/** Another batch for the same place: what a liar shows instead of what correct code proposed. */
import { type Batch, decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import { encodeRequest, type Request } from "../../../protocol/request.ts";
import type { KnownBatch } from "./guild.ts";
import type { Liar } from "./tactic.ts";

export interface Proposed {
  readonly batch: Uint8Array;
  readonly envelopes: readonly Uint8Array[];
}

function batchOf({ guild }: Liar, bytes: Uint8Array): Batch | null {
  const batch = decoded(() => decodeBatch(guild.crypto, bytes));
  return isRejection(batch) ? null : batch;
}

/** Later by a moment, or with other requests in it: valid for whoever sees no other. */
export function validVariant(liar: Liar, { batch: bytes, envelopes }: Proposed): KnownBatch | null {
  const { guild, random } = liar;
  const batch = batchOf(liar, bytes);
  if (!batch) return null;
  const { instance, timestampMs } = batch;
  const requests = batch.requests.map((request) => request.bytes);
  const how = random.below(3);
  const kept = how === 0 ? requests : how === 1 ? requests.slice(1) : requests.toReversed();
  const beside = how === 0 ? envelopes : how === 1 ? envelopes.slice(1) : envelopes.toReversed();
  const moved = how === 0 || random.chance(0.5) ? timestampMs + 1 : timestampMs;
  return guild.learnBatch(encodeBatch({ instance, timestampMs: moved, requests: kept }), beside);
}

/** With words in it that no client said, under an envelope that was for others. */
export function fabricatedVariant(liar: Liar, { batch: bytes, envelopes }: Proposed): KnownBatch | null {
  const { guild, random } = liar;
  const batch = batchOf(liar, bytes);
  if (!batch || batch.requests.length === 0) return null;
  const victim = random.below(batch.requests.length);
  const { instance, timestampMs } = batch;
  const how = random.below(3);
  const requests = batch.requests.map((request, at) => (at === victim ? fabricated(request, how) : request.bytes));
  return guild.learnBatch(encodeBatch({ instance, timestampMs, requests }), envelopes);
}

/** A batch of one request that no client made, for the next instance or the one after it. */
export function inventedBatch(liar: Liar): KnownBatch | null {
  const { guild, random } = liar;
  const known = guild.batches.findLast(({ envelopes }) => envelopes.length > 0);
  const batch = known ? batchOf(liar, known.bytes) : null;
  const [request] = batch?.requests ?? [];
  if (!batch || !request) return null;
  const instance = guild.instance + random.below(2);
  const { timestampMs } = batch;
  return guild.learnBatch(encodeBatch({ instance, timestampMs, requests: [fabricated(request, random.below(3))] }), []);
}

function fabricated(request: Request, how: number): Uint8Array {
  if (how === 0) return encodeRequest({ ...request, sequence: request.sequence + 1 });
  if (how === 1) return encodeRequest({ ...request, commands: [utf8("never issued")] });
  return encodeRequest({ ...request, session: request.session + 1 });
}
