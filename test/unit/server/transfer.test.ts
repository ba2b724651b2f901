/** The shell of a state transfer: real execution over a staged state, fake peers that serve real images (section 6). */
import { describe, expect, it } from "vitest";
import { decodeBatch } from "../../../protocol/batch.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import { decodeChunk } from "../../../protocol/image.ts";
import type { Clock, DriverLogger } from "../../../server/driver-contract.ts";
import { Executor } from "../../../server/service/executor.ts";
import { settledFrom } from "../../../server/transfer/settled.ts";
import { Transfer, type Transferred } from "../../../server/transfer/transfer.ts";
import { Views } from "../../../server/views.ts";
import { CLUSTER, crypto, type Entries, GENESIS, History, imageOf, viewOfSize } from "../recovery/history.ts";
import { Peer, type PeerOptions } from "../recovery/peer.ts";
import { kv, put, request } from "../service/fixtures.ts";
import { FakeStorage } from "./staging-fake.ts";

/** A history of real requests, executed by the real executor. */
class ServiceHistory extends History {
  protected override requestsAt(instance: number): Uint8Array[] {
    const large = instance % 3 === 0 ? 200_000 : 10;
    const commands = [put(`key ${instance % 30}`, `${instance}`.padEnd(large, "x"))];
    return [request({ sequence: instance, ackedBelow: Math.max(0, instance - 20), commands }).bytes];
  }

  override entriesAt(instance: number): Entries {
    const stored: Entries = new Map();
    const applied = { instance: 0, digest: GENESIS, timestampMs: 0 };
    const executor = new Executor({
      crypto,
      cluster: CLUSTER,
      clients: "open",
      administrators: { keys: [], threshold: 1 },
      maxClients: 10,
      stored,
      applied,
      service: kv,
    });
    for (let at = 1; at <= instance; at++) {
      executor.execute(decodeBatch(crypto, this.batch(at)), this.digest(at));
      const group = executor.takeGroup();
      for (const [key, value] of group?.changes ?? []) {
        if (value) stored.set(key, new Uint8Array(value));
        else stored.delete(key);
      }
      executor.groupDurable();
    }
    return stored;
  }
}

/** Time that goes on when it is told to. */
class ManualClock implements Clock {
  #nowUs = 0;
  #timers: { readonly us: number; readonly callback: () => void }[] = [];
  #deferred: (() => void)[] = [];

  nowUs(): number {
    return this.#nowUs;
  }

  wallMs(): number {
    return 1_000_000 + this.#nowUs / 1000;
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  at(us: number, callback: () => void): () => void {
    const timer = { us, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Until `done`, or for so many seconds. */
  async run(seconds: number, done: () => boolean): Promise<void> {
    const endUs = this.#nowUs + seconds * 1_000_000;
    while (!done() && this.#nowUs < endUs) {
      this.#nowUs += 500;
      const due = this.#timers.filter((timer) => timer.us <= this.#nowUs);
      this.#timers = this.#timers.filter((timer) => timer.us > this.#nowUs);
      const deferred = this.#deferred.splice(0);
      for (const callback of [...deferred, ...due.map((timer) => timer.callback)]) callback();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const history = new ServiceHistory(viewOfSize(4, 1), 120);

function setUp(setups: readonly Partial<PeerOptions>[], storage = new FakeStorage(GENESIS)) {
  const clock = new ManualClock();
  const said: string[] = [];
  const faults: string[] = [];
  const say = (detail: Readonly<Record<string, unknown>>, text: string): void => {
    const { replica, donor, code } = detail;
    said.push([text, replica ?? donor, code].filter((part) => part !== undefined).join(" "));
  };
  const logger: DriverLogger = { info: say, warn: say, error: say };
  const peers = setups.map((setup, id) => new Peer({ id, history, ...setup }));
  const { view } = history;
  const cluster: Cluster = {
    id: CLUSTER,
    view,
    genesis: GENESIS,
    clients: "open",
    origin: null,
    signedRequests: false,
    maxClients: 10,
  };
  const views = new Views({ crypto, genesis: view, nowUs: () => clock.nowUs(), misbehaved: () => undefined });
  const transfer: Transfer = new Transfer({
    cluster,
    views,
    self: 3,
    crypto,
    storage,
    service: kv,
    clock,
    verifier: (checks, then) => {
      const valid = checks.map((check) => crypto.verify(check.publicKey, check.statement, check.signature));
      clock.defer(() => then(valid));
    },
    logger,
    send: (to, message) => {
      clock.defer(() => {
        const answer = peers[to]?.answer(message);
        if (answer) transfer.onMessage(to, answer);
      });
    },
    fault: (from, code) => faults.push(`${from} ${code}`),
  });
  return { clock, transfer, peers, storage, said, faults };
}

async function outcome({ clock, transfer }: ReturnType<typeof setUp>, seconds = 60): Promise<Transferred | null> {
  let ended: Transferred | null = null;
  let error: unknown = null;
  transfer.start().then(
    (result) => {
      ended = result;
    },
    (reason: unknown) => {
      error = reason;
    },
  );
  await clock.run(seconds, () => ended !== null || error !== null);
  if (error) throw error;
  return ended;
}

/** The staged state is, byte for byte, what executing the whole history gives. */
function expectRight(storage: FakeStorage, instance: number): void {
  const place = { instance, digest: history.digest(instance), timestampMs: 1000 + instance };
  const { completed } = storage;
  expect(completed?.applied).toEqual(place);
  const staged = imageOf(history.view, place, new Map(completed?.entriesByKey ?? []));
  expect(staged.root).toBe(history.image(instance).root);
}

const usual = [{ checkpoints: [60] }, { checkpoints: [50], roots: [90] }, { checkpoints: [40], roots: [80] }];

describe("6: a transfer from an empty disk", () => {
  it("ends with the state that executing the whole history gives", async () => {
    const run = setUp(usual);
    const result = await outcome(run);
    expect(result?.place.instance).toBe(119);
    expect(result?.certificate?.instance).toBe(120);
    expectRight(run.storage, 119);
    expect(run.faults).toEqual([]);
    expect(run.transfer.progress).toMatchObject({ phase: "install", donor: 0, sources: [1], secondsLeft: null });
    expect(run.transfer.progress.bytes).toBe(run.transfer.progress.bytesTotal);
    expect(run.said).toContain("fetching the checkpoint of this replica 0");
    expect(run.said).toContain("the fetched state is complete");
  });

  it("a false state is executed on, refuted, and its chunks that are right serve the next donor", async () => {
    const run = setUp([{ checkpoints: [60], extra: { kzz: "false" } }, usual[1] ?? {}, usual[2] ?? {}]);
    const result = await outcome(run);
    expect(result?.place.instance).toBe(119);
    expectRight(run.storage, 119);
    expect(run.faults.length).toBeGreaterThan(0);
    expect(run.said.some((text) => text.startsWith("no longer fetching from this replica 0"))).toBe(true);
  });

  it("entries that no service wrote are the donor's fault, not ours", async () => {
    const run = setUp([{ checkpoints: [60], extra: { c: "nonsense" } }, usual[1] ?? {}, usual[2] ?? {}]);
    const result = await outcome(run);
    expect(result?.place.instance).toBe(119);
    expectRight(run.storage, 119);
    expect(run.faults).toContain("0 CHECKPOINT_UNUSABLE");
  });

  it("a batch that is tried leaves nothing behind but where the state is right from", async () => {
    const older = { height: 119, checkpoints: [90], roots: [], neverTakes: true };
    const newer = { height: 120, checkpoints: [120], neverTakes: true };
    const run = setUp([older, newer, { down: true }]);
    const result = await outcome(run);
    expect(result?.place.instance).toBe(119);
    expectRight(run.storage, 119);
    expect(run.storage.completed && settledFrom(run.storage.completed)).toBe(120);
    expect(run.faults).toEqual([]);
  });

  it("a state that needs no trial is right as it stands", async () => {
    const run = setUp(usual);
    await outcome(run);
    expect(run.storage.completed && settledFrom(run.storage.completed)).toBe(0);
  });

  it("a batch that cannot be executed is undone, too, and speaks against nobody but its sender", async () => {
    const none: PeerOptions["lie"] = (message) =>
      message.type === "HISTORY" && message.from === 120
        ? { ...message, batches: message.batches.map((bytes) => bytes.subarray(0, 20)) }
        : message;
    const older = { height: 119, checkpoints: [90], roots: [], neverTakes: true };
    const run = setUp([older, { height: 120, checkpoints: [120], neverTakes: true, lie: none }, { down: true }]);
    expect(await outcome(run, 20)).toBe(null);
    const third = run.peers[2] as Peer;
    third.checkpoints = [119];
    third.roots = [119];
    Object.assign(third.options, { down: false, height: 119 });
    await run.clock.run(20, () => run.storage.completed?.applied.instance === 119);
    expectRight(run.storage, 119);
    expect(run.said.filter((text) => text.startsWith("no longer"))).toEqual([]);
  });

  it("stopped, it ends with nothing and leaves what is staged, to go on with at the next start", async () => {
    const { chunks } = history.image(60);
    expect(chunks.length).toBeGreaterThan(1);
    const first = setUp(usual);
    const storage = first.storage;
    for (const chunk of chunks.slice(0, 1)) {
      const digest = crypto.sha256(chunk);
      storage.chunks.set(digest, { digest, bytes: chunk.length, entries: decodeChunk(chunk) });
    }
    const donor = first.peers[0] as Peer;
    donor.options.lie = (message) => (message.type === "CHUNK" ? null : message);
    const starting = first.transfer.start();
    await first.clock.run(1, () => false);
    expect(first.transfer.progress).toMatchObject({ phase: "checkpoint", donor: 0 });
    expect(first.transfer.progress.bytes).toBeGreaterThan(0);
    await first.transfer.stop();
    expect(await starting).toBe(null);
    expect(storage.chunks.size).toBe(1);
    const second = setUp(usual, storage);
    expect((await outcome(second))?.place.instance).toBe(119);
    expectRight(storage, 119);
    expect(second.peers[0]?.count("FETCH_CHUNK")).toBe(chunks.length - 1);
  });

  it("stopped while its staged state is opening, it leaves none open: the next one can begin", async () => {
    const storage = new FakeStorage(GENESIS);
    const { stage } = storage;
    let opened: () => void = () => undefined;
    storage.stage = async () => {
      await new Promise<void>((resolve) => {
        opened = resolve;
      });
      return stage.call(storage);
    };
    const first = setUp(usual, storage);
    const starting = first.transfer.start();
    const stopping = first.transfer.stop();
    opened();
    await stopping;
    expect(await starting).toBe(null);
    storage.stage = stage;
    expect((await outcome(setUp(usual, storage)))?.place.instance).toBe(119);
  });

  it("a disk that fails ends it", async () => {
    const storage = new FakeStorage(GENESIS);
    const failing = new Error("the disk is gone");
    const { stage } = storage;
    storage.stage = async () => ({ ...(await stage.call(storage)), add: () => Promise.reject(failing) });
    await expect(outcome(setUp(usual, storage))).rejects.toBe(failing);
  });
});
