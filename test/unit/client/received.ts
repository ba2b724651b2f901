/** What fake replicas received, for tests to look at. */
import type { FakeCluster } from "./fake-replicas.ts";

/** A value above the size that every replica sends in full. */
export const LARGE = "x".repeat(5_000);

/** Distinct requests a replica received, in order of arrival. */
export function requestsOf(cluster: FakeCluster, id = 0) {
  const seen = new Set<string>();
  return cluster.replica(id).received.filter(({ request }) => !seen.has(request.digest) && seen.add(request.digest));
}

/** Distinct ordered requests. */
export function ordered(cluster: FakeCluster, id = 0) {
  return requestsOf(cluster, id).filter(({ request }) => request.kind === "ordered");
}
