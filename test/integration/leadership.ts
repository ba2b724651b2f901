/** Who leads a real cluster, as f+1 of its replicas say: one that lies, or is behind, names nobody. */
import type { TestCluster } from "./cluster.ts";
import { until } from "./cluster.ts";

export interface Leadership {
  readonly regency: number;
  readonly leader: number;
}

/** What the answering replicas among these agree on, or null. A replica that is stopped or frozen is no reason to wait long. */
export async function leadership(cluster: TestCluster, replicas: readonly number[]): Promise<Leadership | null> {
  const answers = await Promise.allSettled(replicas.map((replica) => cluster.status(replica, 1_000)));
  const known = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  const sorted = known.sort((a, b) => b.regency - a.regency);
  const found = sorted[cluster.file.f];
  return found ? { regency: found.regency, leader: found.leader } : null;
}

/** Waits until f+1 of these replicas are in `regency` or a later one. @throws Error after `timeoutMs` */
export function leadershipFrom(
  cluster: TestCluster,
  options: { regency: number; replicas?: readonly number[]; timeoutMs?: number },
): Promise<Leadership> {
  const { regency, replicas = cluster.ids, timeoutMs = 30_000 } = options;
  return until(
    async () => {
      const found = await leadership(cluster, replicas);
      return found !== null && found.regency >= regency ? found : null;
    },
    { timeoutMs, everyMs: 50, what: `regency ${regency} at replicas ${replicas.join(", ")}` },
  );
}

/** Until a replica that was away has executed what the others had, and votes. */
export async function isBack(cluster: TestCluster, replica: number): Promise<void> {
  const others = cluster.ids.filter((id) => id !== replica);
  const target = Math.max(...(await Promise.all(others.map(async (id) => (await cluster.status(id)).executed))));
  await until(
    async () => {
      const { executed, state } = await cluster.status(replica);
      return executed >= target && state === "voting" ? true : null;
    },
    { what: `replica ${replica} to be back at instance ${target}` },
  );
}
