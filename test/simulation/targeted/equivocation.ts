/**
 * The first leader tells one half of the replicas one thing and the other half another, or everybody both, and all liars vote for
 * either. At most one is decided, nobody writes twice, and somebody else leads in the end (docs/protocol.md sections 1 and 4.2).
 */
import type { ReplicaId } from "../../../protocol/view.ts";
import type { KnownBatch } from "../byzantine/guild.ts";
import { Stage } from "./stage.ts";

export function equivocation(seed: number): void {
  // Only at n = 3f+1 are quorums of 2f+1 the same.
  const n = [4, 5, 6, 7, 9][seed % 5] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, correct, random } = stage;
  const { view } = cluster;
  const request = stage.request();
  const first = stage.batch(1, stage.wallMs, [request]);
  const second = stage.batch(1, stage.wallMs + 1, [request]);
  const propose = ({ instance, bytes, envelopes }: KnownBatch, to: readonly ReplicaId[]): void => {
    const place = { view: view.id, regency: 0, instance };
    stage.lie(0, to, { type: "PROPOSE", ...place, batch: bytes, envelopes: [...envelopes] });
  };
  const half = Math.floor(correct.length / 2);
  const halves = [correct.slice(0, half), correct.slice(half)];
  if (random.chance(0.5)) halves.reverse();
  const both = random.chance(0.3);
  for (const [at, ids] of halves.entries()) {
    const [told, other] = at === 0 ? [first, second] : [second, first];
    propose(told, ids);
    if (both) propose(other, ids);
    stage.support(0, told, ids);
    stage.deliver({ among: ids, types: ["WRITE"] });
    stage.support(0, told, ids);
    stage.deliver({ among: ids, types: ["WRITE", "ACCEPT"] });
  }
  stage.live();
}
