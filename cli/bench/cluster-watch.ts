/**
 * Watches the replicas of a cluster over admin HTTP while a benchmark runs, and tells what changes: a replica that answers no
 * more or again, and another leader once f+1 replicas name it. It is their word; a timeline carries it as a mark.
 */
import { setTimeout as pause } from "node:timers/promises";
import { type ClusterFile, clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { askReplicas, type ReplicaStatus, type StatusAnswer } from "../replica-status.ts";

const WATCH_MS = 100;
/** A replica that takes longer is told of as one that does not answer. */
const ANSWER_MS_MAX = 1_000;

/** The last answer of every replica, and what was told of them. */
export class ClusterNews {
  readonly #weakQuorum: number;
  readonly #answers = new Map<number, StatusAnswer>();
  #regency: number | null = null;

  /** `weakQuorum`: so many replicas make a regency credible. */
  constructor(weakQuorum: number) {
    this.#weakQuorum = weakQuorum;
  }

  /** What this answer says that was not known before, a line each. */
  changes(answer: StatusAnswer): string[] {
    const { replica, problem } = answer;
    const answeredBefore = (this.#answers.get(replica)?.problem ?? null) === null;
    this.#answers.set(replica, answer);
    const lines: string[] = [];
    if (problem !== null && answeredBefore) lines.push(`replica ${replica}: ${problem}`);
    if (problem === null && !answeredBefore) lines.push(`replica ${replica} answers again`);
    const statuses = [...this.#answers.values()].flatMap(({ status }): ReplicaStatus[] => (status ? [status] : []));
    const credible = statuses.sort((a, b) => b.regency - a.regency)[this.#weakQuorum - 1];
    if (credible === undefined || credible.regency <= (this.#regency ?? -1)) return lines;
    if (this.#regency !== null) lines.push(`regency ${credible.regency}, replica ${credible.leader} leads`);
    this.#regency = credible.regency;
    return lines;
  }
}

/** Asks every replica again and again until the returned function is called, which resolves when all have ended. */
export function watchCluster(file: ClusterFile, tell: (change: string) => void): () => Promise<void> {
  const news = new ClusterNews(clusterOf(nodeCrypto, file).view.weakQuorum);
  const stop = new AbortController();
  const watch = async (member: ClusterFile["members"][number]): Promise<void> => {
    while (!stop.signal.aborted) {
      const answers = await askReplicas({ ...file, members: [member] }, ANSWER_MS_MAX);
      for (const answer of answers) for (const change of news.changes(answer)) tell(change);
      await pause(WATCH_MS, null, { signal: stop.signal }).catch(() => {});
    }
  };
  const ended = Promise.all(file.members.map(watch));
  return async () => {
    stop.abort();
    await ended;
  };
}
