import { expect, it } from "vitest";
import type { MessageType } from "../../../protocol/messages.ts";
import { VotesChecker } from "../../simulation/checkers/votes.ts";
import { CoreCluster } from "../../simulation/core-cluster.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

/** Everything that waits is done but what is said here: messages of these types are lost, or no journal completes. */
function work(cluster: CoreCluster, options: { lost?: MessageType; journals?: boolean }): void {
  const { lost, journals = true } = options;
  const deliver = (): void => {
    for (let pass = 0; pass < 50; pass++) {
      for (const [name, queue] of cluster.links) {
        while (queue.length > 0) {
          if (queue[0]?.type === lost) queue.shift();
          else cluster.deliverOne(name);
        }
      }
    }
  };
  cluster.tick(60_000);
  deliver();
  for (const replica of cluster.replicas) {
    while (journals && replica.journaling.length > 0) cluster.journalOne(replica);
    while (replica.verifying.length > 0) cluster.verifyOne(replica);
  }
  deliver();
}

it("section 4, restart rules: no SYNC leaves before the clean-stop record is erased; a crash would forget it", () => {
  const syncs: string[] = [];
  const cluster = new CoreCluster({
    n: 4,
    seed: 1,
    observers: [new VotesChecker(fastCrypto)],
    probe: { sent: (from, to, message) => message.type === "SYNC" && syncs.push(`${from}>${to}`) },
  });
  for (const other of [1, 2, 3]) cluster.cut(0, other);
  cluster.request();
  const synchronizer = (): (typeof cluster.replicas)[number] | undefined => cluster.replicas[1];
  while (synchronizer()?.core.state.regency === 0) work(cluster, { lost: "STOPDATA" });
  work(cluster, { lost: "STOPDATA" });
  cluster.stopCleanly(1);
  cluster.restart(1);
  for (let pass = 0; pass < 2; pass++) work(cluster, { lost: "SYNC", journals: false });
  expect(syncs).toEqual([]);
  cluster.crash(1, 0);
  cluster.restart(1);
  for (let pass = 0; pass < 10; pass++) work(cluster, {});
  expect(syncs).toContain("1>2");
  expect(cluster.heights().slice(1)).toEqual([1, 1, 1]);
});
