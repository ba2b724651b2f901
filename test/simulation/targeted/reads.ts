/**
 * A write reaches one replica after the other while a client reads again and again, and liars answer what they like. No read may
 * miss a write that a quorum has acknowledged, or be older than the read before it: two quorums share a correct replica
 * (docs/protocol.md section 3, "Unordered requests").
 */

import { Votes } from "../../../client/quorum.ts";
import { judgeUnordered } from "../../../client/verdict.ts";
import { type Digest, EMPTY } from "../../../protocol/bytes.ts";
import type { Reply } from "../../../protocol/client-frames.ts";
import { Violation } from "../contract.ts";
import { coreView } from "../core-replica.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { type Random, seeded } from "../random.ts";

const READS = 40;
const STEPS_MAX = 3;

function answer(replica: number, version: number): Reply {
  const result = Uint8Array.of(version);
  return {
    type: "REPLY",
    replica,
    view: 0,
    session: 1,
    sequence: 1,
    kind: "unordered",
    requestDigest: "" as Digest,
    status: "OK",
    position: version,
    resultDigest: fastCrypto.sha256(result),
    body: "full",
    result,
    header: EMPTY,
    mac: "",
  };
}

/** What a read that begins now returns; null when it would be ordered instead. Writes go on meanwhile. */
function read(n: number, random: Random, write: () => void, versionAt: (replica: number) => number): number | null {
  const view = coreView(n);
  const votes = new Votes(n);
  const silent = new Set(Array.from({ length: n }, (_, at) => at));
  while (silent.size > 0) {
    for (let steps = random.below(STEPS_MAX); steps > 0; steps--) write();
    const replica = random.pick([...silent]);
    silent.delete(replica);
    const reply = answer(replica, versionAt(replica));
    votes.add(replica, reply);
    const verdict = judgeUnordered({ crypto: fastCrypto, view, votes }, reply, silent.size);
    if (verdict.type === "result") return verdict.result[0] ?? 0;
    if (verdict.type === "reorder") return null;
  }
  return null;
}

export function reads(seed: number): void {
  const random = seeded(seed);
  const n = [4, 5, 6, 7][seed % 4] as number;
  const { f, quorum } = coreView(n);
  const versions = Array.from({ length: n }, () => 0);
  const correct = versions.map((_, at) => at).slice(f);
  let newest = 0;
  /** The next replica executes the newest write; when all have, another write is decided. */
  const write = (): void => {
    const behind = correct.filter((at) => (versions[at] as number) < newest);
    if (behind.length === 0) newest++;
    else versions[random.pick(behind)] = newest;
  };
  const acknowledged = (): number =>
    [...correct].map((at) => versions[at] as number).sort((a, b) => b - a)[quorum - f - 1] ?? 0;
  const versionAt = (at: number): number => (at < f ? random.below(newest + 1) : (versions[at] as number));
  let last = 0;
  for (let round = 0; round < READS; round++) {
    const least = Math.max(last, acknowledged());
    const seen = read(n, random, write, versionAt);
    if (seen === null) continue;
    if (seen < least) throw new Violation("real-time", `a read returns version ${seen} after ${least}`);
    last = seen;
  }
}
