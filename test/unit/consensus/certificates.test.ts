import { expect, it } from "vitest";
import { writeStatement } from "../../../protocol/messages.ts";
import { CoreCluster } from "../../simulation/core-cluster.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

/** Writes with a bad signature whose journal records could outlive their verification. */
function clusterWithForger(seed: number): CoreCluster {
  return new CoreCluster({
    n: 4,
    seed,
    liar: (from, _to, message) =>
      from === 1 && message.type === "WRITE" ? [{ ...message, signature: new Uint8Array(64) }] : [message],
  });
}

it("4.3: no certificate stays in a journal that does not verify, whenever its verification ends", () => {
  let certificates = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const cluster = clusterWithForger(seed);
    for (let index = 0; index < 8; index++) {
      cluster.request();
      for (let step = 0; step < 60; step++) cluster.randomStep();
    }
    cluster.settle(4);
    for (const replica of cluster.replicas) {
      for (const { certificate } of replica.disk.instances.values()) {
        if (certificate === null) continue;
        certificates++;
        const statement = writeStatement(cluster.view.cluster, certificate);
        for (const vote of certificate.votes) {
          const member = cluster.view.members.find(({ id }) => id === vote.replica);
          const valid = member !== undefined && fastCrypto.verify(member.signKey, statement, vote.signature);
          expect(valid, `seed ${seed}: replica ${replica.id}, instance ${certificate.instance}`).toBe(true);
        }
      }
    }
  }
  expect(certificates).toBeGreaterThan(100);
});
