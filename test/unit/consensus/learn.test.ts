import { expect, it } from "vitest";
import type { Message } from "../../../protocol/messages.ts";
import { CoreCluster, type SimulatedReplica } from "../../simulation/core-cluster.ts";

it("4.7: what is learned from the log is journaled in order, also when waiting messages decide its successor", () => {
  const missed: { from: number; message: Message }[] = [];
  let cut = true;
  const cluster = new CoreCluster({
    n: 4,
    seed: 1,
    liar: (from, to, message) => {
      if (to !== 3 || !cut) return [message];
      missed.push({ from, message });
      return [];
    },
  });
  for (let index = 0; index < 4; index++) {
    cluster.request({ to: [0, 1, 2] });
    cluster.settle(2);
  }
  expect(cluster.heights()).toEqual([4, 4, 4, 0]);
  cut = false;
  const late = cluster.replicas[3] as SimulatedReplica;
  for (const { from, message } of missed) {
    const ahead = (message.type === "PROPOSE" || message.type === "ACCEPT") && message.instance > 1;
    if (ahead) cluster.input(late, { type: "message", from, message });
  }
  cluster.settle(10);
  expect(cluster.heights()).toEqual([4, 4, 4, 4]);
  expect([...late.disk.instances.keys()]).toEqual([1, 2, 3, 4]);
});
