/** How much a session has in flight (client/retry-policy.ts). */
import { expect, test } from "vitest";
import { RetryPolicy } from "../../../client/retry-policy.ts";
import { behaviours, FakeClock } from "./fake-replicas.ts";
import { answerOf, connected } from "./fixture.ts";
import { ordered } from "./received.ts";

test("half as many after each BUSY, once per pause, at least one; one more for as many as were answered", () => {
  const clock = new FakeClock();
  const policy = new RetryPolicy(clock);
  expect(policy.window).toBe(64);
  let now = 1_000;
  for (const left of [32, 16, 8, 4, 2, 1, 1]) {
    now = policy.busy(now) + 1;
    expect(policy.window).toBe(left);
  }
  const until = policy.busy(now);
  policy.answered(10);
  const { window } = policy;
  if (until > now) policy.busy(now);
  expect(policy.window, "during a pause").toBe(window);
  for (let answers = 0; answers < 400; answers++) policy.answered(10);
  expect(policy.window).toBeGreaterThan(20);
  for (let answers = 0; answers < 4_000; answers++) policy.answered(10);
  expect(policy.window).toBe(64);
});

test("a session that was told BUSY has half as many requests in flight", async () => {
  const { clock, cluster, kv } = await connected();
  for (const replica of cluster.replicas) replica.behaviour = behaviours.says("BUSY");
  const first = kv.put("a", "0");
  await clock.settle();
  for (const replica of cluster.replicas) replica.behaviour = null;
  await answerOf(clock, first, 1_000);
  const before = ordered(cluster).length;
  cluster.paused = true;
  const puts: Promise<unknown>[] = [];
  for (let at = 0; at < 100; at++) {
    puts.push(kv.put(`k${at}`, ""));
    await clock.settle();
  }
  // One answer since: a little more than half, and so one more.
  expect(ordered(cluster).length - before).toBe(33);
  cluster.resume();
  await answerOf(clock, Promise.all(puts));
});
