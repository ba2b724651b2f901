/** A connected client on fake replicas and fake time. */
import { type Codec, utf8 } from "../../../client/codecs.ts";
import type { Kv } from "../../../client/kv.ts";
import { type ConnectionOptions, open } from "../../../client/open.ts";
import { SessionNumbers } from "../../../client/session-numbers.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import { crypto, FakeClock, FakeCluster } from "./fake-replicas.ts";

const STEP_MS = 20;

export interface Fixture {
  readonly clock: FakeClock;
  readonly cluster: FakeCluster;
  readonly kv: Kv<string>;
}

export async function connected(
  options: { n?: number; f?: number; mode?: "bft" | "cft"; prepare?: (cluster: FakeCluster) => void } & Partial<
    ConnectionOptions<string>
  > = {},
): Promise<Fixture> {
  const { n = 4, mode = "bft", prepare, f, ...rest } = options;
  const clock = new FakeClock();
  const cluster = new FakeCluster({ n, mode, clock, ...(f === undefined ? {} : { f }) });
  prepare?.(cluster);
  const kv = await answerOf(clock, opened(cluster, clock, rest));
  return { clock, cluster, kv };
}

export function opened(
  cluster: FakeCluster,
  clock: FakeClock,
  options: Partial<ConnectionOptions<string>> = {},
): Promise<Kv<string>> {
  const codec: Codec<string> = utf8;
  return open({
    cluster: cluster.file,
    identity: newIdentity(crypto),
    crypto,
    clock,
    sessionNumbers: new SessionNumbers(),
    codec,
    ...options,
    transport: cluster,
  });
}

/** The outcome of a promise that the test's time has to drive: at most `ms`, and no longer than it needs. */
export async function outcomeOf<T>(
  clock: FakeClock,
  promise: Promise<T>,
  ms = 0,
): Promise<{ value: T } | { error: unknown }> {
  let outcome: { value: T } | { error: unknown } | null = null;
  promise.then(
    (value) => {
      outcome = { value };
    },
    (error: unknown) => {
      outcome = { error };
    },
  );
  await clock.settle();
  for (let passed = 0; !outcome && passed < ms; passed += STEP_MS) await clock.advance(Math.min(STEP_MS, ms - passed));
  if (!outcome) throw new Error(`still pending after ${ms} ms`);
  return outcome;
}

export async function answerOf<T>(clock: FakeClock, promise: Promise<T>, ms = 0): Promise<T> {
  const outcome = await outcomeOf(clock, promise, ms);
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
}

export async function errorOf(clock: FakeClock, promise: Promise<unknown>, ms = 0): Promise<unknown> {
  const outcome = await outcomeOf(clock, promise, ms);
  if ("value" in outcome) throw new Error(`resolved with ${String(outcome.value)}`);
  return outcome.error;
}
