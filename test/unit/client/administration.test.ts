/** `Administration` on fake replicas: what an administrator is told. */
import { expect, test } from "vitest";
import { Administration } from "../../../client/administration.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { behaviours, crypto, FakeClock, FakeCluster } from "./fake-replicas.ts";
import { answerOf, errorOf } from "./fixture.ts";

test("signatures of too few administrators: how many there are and must be", async () => {
  const clock = new FakeClock();
  const cluster = new FakeCluster({ clock, administrators: 3, threshold: 2 });
  for (const replica of cluster.replicas) {
    replica.behaviour = behaviours.says("REFUSED", utf8("NOT_ADMINISTRATOR"));
  }
  const administrators = cluster.world.administrators.slice(0, 1);
  const options = { cluster: cluster.file, administrators, crypto, clock, transport: cluster };
  const administration = await answerOf(clock, Administration.open(options));
  expect(await errorOf(clock, administration.list())).toMatchObject({
    code: "NOT_ADMINISTRATOR",
    message: expect.stringMatching(/^it takes 2 of the cluster's administrators' keys.* given: 1; .*--admin-key$/),
    detail: { have: 1, need: 2 },
  });
  await answerOf(clock, administration.close());
});
