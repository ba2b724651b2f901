/** A synchronizer whose state came with a checkpoint (docs/protocol.md section 5): it never had the batch its SYNC has to carry. */
import { describe, expect, it } from "vitest";
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import { CoreCluster, type SimulatedReplica } from "../../simulation/core-cluster.ts";
import { emptyDisk } from "../../simulation/core-replica.ts";

type Answer = (from: number, message: MessageOf<"HISTORY">) => Message[];

/** Replica 1 has the state of instance 1 from a checkpoint; replica 0, which led, is dead. */
function installed(answer: Answer = (_, message) => [message]) {
  const carried: string[] = [];
  const asked: number[] = [];
  const cluster = new CoreCluster({
    n: 4,
    seed: 1,
    liar: (from, to, message) => (message.type === "HISTORY" && to === 1 ? answer(from, message) : [message]),
    probe: {
      sent: (from, to, message) => {
        if (message.type === "SYNC" && to === 2) carried.push(`${from} r${message.regency}`);
        if (message.type === "FETCH_HISTORY" && from === 1 && message.from === 1) asked.push(to);
      },
    },
  });
  cluster.request();
  cluster.settle(2);
  expect(cluster.heights()).toEqual([1, 1, 1, 1]);
  const { instance, digest, batch } = [...(cluster.replicas[2] as SimulatedReplica).disk.instances.values()][0] ?? {};
  if (instance === undefined || digest === undefined || !batch) throw new Error("nothing was journaled");
  cluster.crash(0);
  cluster.crash(1);
  cluster.replaceDisk(1, {
    ...emptyDisk(),
    installed: { instance, digest, timestampMs: cluster.wallMsOf(cluster.replicas[2] as SimulatedReplica) },
  });
  cluster.restart(1);
  cluster.request();
  return { cluster, carried, asked, digest };
}

describe("5: a synchronizer that never had the selected batch, which it has decided", () => {
  it("fetches it and goes on in its own regency", () => {
    const { cluster, carried, asked } = installed();
    cluster.settle(120);
    expect(carried[0]).toBe("1 r1");
    expect(asked.length).toBe(1);
    expect(cluster.heights().slice(1)).toEqual([2, 2, 2]);
  });

  it("takes no other batch, whatever is said to lie below it, and asks the next", () => {
    let lies = 0;
    const { cluster, carried, asked } = installed((from, message) => {
      if (lies > 0) return [message];
      lies++;
      expect([2, 3]).toContain(from);
      return [
        {
          ...message,
          batches: message.batches.map((batch) => batch.map((byte, at) => (at === batch.length - 1 ? byte ^ 1 : byte))),
        },
      ];
    });
    cluster.settle(120);
    expect(lies).toBe(1);
    expect(new Set(asked).size).toBe(2);
    expect(carried[0]).toBe("1 r1");
    expect(cluster.heights().slice(1)).toEqual([2, 2, 2]);
  });
});
