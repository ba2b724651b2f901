import { expect, it } from "vitest";
import type { Message } from "../../../protocol/messages.ts";
import { CoreCluster, type SimulatedReplica } from "../../simulation/core-cluster.ts";

it("4.7: what is learned from the log is journaled in order, also when waiting messages decide its successor", () => {
  const missed: { from: number; message: Message }[] = [];
  const ordering = new Set(["PROPOSE", "WRITE", "ACCEPT"]);
  const cluster = new CoreCluster({
    n: 4,
    seed: 1,
    liar: (from, to, message) => {
      if (to !== 3 || !ordering.has(message.type)) return [message];
      missed.push({ from, message });
      return [];
    },
  });
  for (let index = 0; index < 4; index++) {
    cluster.request({ to: [0, 1, 2] });
    cluster.settle(1);
  }
  const late = cluster.replicas[3] as SimulatedReplica;
  expect(late.core.lastDecided).toBe(0);
  for (const { from, message } of missed) {
    if (message.type === "PROPOSE" || (message.type === "ACCEPT" && message.instance > 1)) {
      cluster.input(late, { type: "message", from, message });
    }
  }
  cluster.settle(10);
  const top = cluster.heights()[0] as number;
  expect(top).toBeGreaterThan(2);
  expect(late.core.lastDecided).toBe(top);
  expect([...late.disk.instances.keys()]).toEqual(Array.from({ length: top }, (_, index) => index + 1));
});
