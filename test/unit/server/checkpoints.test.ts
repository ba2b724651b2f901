import { describe, expect, it } from "vitest";
import { hex, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { rootStatement } from "../../../protocol/image.ts";
import { LOG_BYTES_MAX, ROOTS_KEPT } from "../../../protocol/limits.ts";
import type { SignedRoot } from "../../../protocol/messages.ts";
import {
  decodeRoots,
  encodeRoots,
  logNeededFrom,
  type OwnRoot,
  withRoot,
} from "../../../server/archive/checkpoint-roots.ts";
import { Checkpoints } from "../../../server/archive/checkpoints.ts";
import type { StateSnapshot } from "../../../storage/contract.ts";
import { CLUSTER, FakeClock, identityOf, MemoryJournal, MemoryState, signerOf, viewOfSize } from "./fixture.ts";

const PERIOD = 40;
const SECOND_US = 1_000_000;
const MINUTE_US = 60 * SECOND_US;

class World {
  readonly clock: FakeClock;
  readonly state: MemoryState;
  readonly journal: MemoryJournal;
  readonly announced: SignedRoot[] = [];
  readonly errors: unknown[] = [];
  /** Cuts that wait for the disk. */
  readonly waiting: (() => void)[] = [];
  held = false;
  readonly checkpoints: Checkpoints;

  constructor(before?: World, settledFrom = 0) {
    this.clock = before?.clock ?? new FakeClock();
    this.state = before?.state ?? new MemoryState();
    this.journal = before?.journal ?? new MemoryJournal();
    this.checkpoints = new Checkpoints({
      crypto: nodeCrypto,
      view: viewOfSize(4),
      genesis: viewOfSize(4),
      self: 1,
      signer: signerOf(1),
      journal: this.journal,
      state: this.state,
      period: PERIOD,
      settledFrom,
      clock: this.clock,
      port: {
        executed: () => this.state.applied.instance,
        cut: (then) => this.#cut(then),
        busy: () => false,
        announce: (root) => this.announced.push(root),
        failed: (error) => this.errors.push(error),
      },
    });
  }

  #cut(then: (snapshot: StateSnapshot) => void): boolean {
    const snapshot = this.state.snapshot();
    if (this.held) this.waiting.push(() => then(snapshot));
    else then(snapshot);
    return true;
  }

  /** Executes up to `instance`; what is begun on the way gets the time to end. */
  async to(instance: number): Promise<void> {
    while (this.state.applied.instance < instance) {
      await this.step();
      if (this.checkpoints.status.computing) await this.clock.run();
    }
    await this.clock.run();
  }

  async step(): Promise<void> {
    this.journal.grow(1);
    const at = this.journal.last;
    const digest = this.journal.records.at(-1)?.digest ?? "";
    const changes = new Map([[`k${at % 10}`, utf8(`${at}`)]]);
    await this.state.write({ changes, applied: { instance: at, digest, timestampMs: at } });
    this.checkpoints.executed(at);
  }

  get instances(): number[] {
    return this.announced.map(({ instance }) => instance);
  }

  get open(): number[] {
    return this.state.snapshots.filter(({ closed }) => !closed).map(({ applied }) => applied.instance);
  }
}

describe("checkpoints", () => {
  it("are not taken of a state that may be false yet, whoever asks", async () => {
    const world = new World(undefined, 19);
    world.checkpoints.start();
    for (let instance = 1; instance <= 18; instance++) {
      await world.step();
      world.checkpoints.requested(1);
      await world.clock.run();
    }
    expect(world.announced).toEqual([]);
    await world.to(25);
    expect(world.instances).toEqual([19]);
  });

  it("are taken on schedule; the newest is offered, its root signed, announced and written down", async () => {
    const world = new World();
    expect(world.checkpoints.status).toEqual({ newest: null, computing: false, period: PERIOD });
    await world.to(60);
    // Position 1 of 4: instances with i mod 40 = 19.
    expect(world.instances).toEqual([19, 59]);
    for (const { instance, root, signature } of world.announced) {
      const statement = rootStatement(CLUSTER, { view: 0, instance, root });
      expect(nodeCrypto.verify(identityOf(1).signKey, statement, signature)).toBe(true);
    }
    expect(world.checkpoints.roots()).toEqual([...world.announced].reverse());
    const [offer, ...others] = world.checkpoints.offers();
    expect(others).toEqual([]);
    expect(offer).toMatchObject({ instance: 59, timestampMs: 59, chunks: 1 });
    const root = hex(world.announced[1]?.root ?? "");
    expect(world.checkpoints.status.newest).toEqual({ instance: 59, root, bytes: offer?.bytes, chunks: 1 });
    expect(world.open).toEqual([59]);
    const note = decodeRoots(world.state.note("roots") ?? new Uint8Array(0));
    expect(note.map(({ instance, kind }) => [instance, kind])).toEqual([
      [59, "checkpoint"],
      [19, "checkpoint"],
    ]);
  });

  it("keep the log from the second-newest completed one on", async () => {
    const world = new World();
    await world.to(58);
    expect(world.journal.truncated).toEqual([]);
    await world.to(59);
    expect(world.journal.truncated).toEqual([20]);
    await world.to(150);
    expect(world.journal.truncated).toEqual([20, 60, 100]);
    expect(world.journal.base.instance).toBe(99);
    expect(world.errors).toEqual([]);
  });

  it("do not truncate before the newer one is complete and its root on disk", async () => {
    const world = new World();
    await world.to(58);
    const write = world.state.writeNote.bind(world.state);
    let finish = (): void => undefined;
    world.state.writeNote = (name, value) => {
      const disk = new Promise<void>((resolve) => {
        finish = resolve;
      });
      return disk.then(() => write(name, value));
    };
    await world.to(62);
    expect([world.journal.truncated, world.instances]).toEqual([[], [19]]);
    finish();
    await world.clock.run();
    expect([world.journal.truncated, world.instances]).toEqual([[20], [19, 59]]);
  });

  it("common roots are offered as roots only, and do not count as checkpoints where the log is cut", async () => {
    const world = new World();
    await world.to(16 * PERIOD);
    expect(world.instances.slice(-2)).toEqual([619, 640]);
    expect(world.checkpoints.offers().map(({ instance }) => instance)).toEqual([619]);
    expect(world.open).toEqual([619]);
    expect(world.journal.base.instance).toBe(579);
    await world.to(16 * PERIOD + 19);
    expect(world.journal.base.instance).toBe(619);
    expect(world.checkpoints.roots().length).toBe(ROOTS_KEPT);
  });

  it("after a restart the log is kept by the checkpoints of before, though their images are gone", async () => {
    const before = new World();
    await before.to(16 * PERIOD);
    before.checkpoints.close();
    await before.clock.run();
    expect(before.open).toEqual([]);
    const world = new World(before);
    expect(world.checkpoints.roots()).toEqual(before.checkpoints.roots());
    expect(world.checkpoints.offers()).toEqual([]);
    world.checkpoints.start();
    await world.to(645);
    expect(world.checkpoints.offers()).toEqual([]);
    await world.clock.run(5 * SECOND_US);
    expect(world.checkpoints.offers().map(({ instance }) => instance)).toEqual([645]);
    // 640 was a common root only, and what a start takes counts as little as what others ask for.
    expect(world.journal.base.instance).toBe(579);
  });

  it("soon after a start there is one, as soon as anything was executed", async () => {
    const world = new World();
    world.checkpoints.start();
    await world.clock.run(10 * SECOND_US);
    expect(world.instances).toEqual([]);
    await world.to(3);
    expect(world.instances).toEqual([1]);
    await world.clock.run(10 * SECOND_US);
    expect(world.instances).toEqual([1]);
  });

  it("a damaged note of roots counts as none", () => {
    const before = new World();
    before.state.notes.set("roots", utf8("nonsense"));
    expect(new World(before).checkpoints.roots()).toEqual([]);
  });

  it("at most one is under way, with one common root beside it", async () => {
    const world = new World();
    world.held = true;
    while (world.state.applied.instance < 19) await world.step();
    world.checkpoints.requested(19);
    for (let instance = 20; instance <= 60; instance++) await world.step();
    expect(world.waiting).toHaveLength(1);
    expect(world.checkpoints.status.computing).toBe(true);
    for (let instance = 61; instance <= 640; instance++) await world.step();
    expect(world.waiting).toHaveLength(2);
    for (const then of world.waiting.splice(0)) then();
    await world.clock.run();
    expect(world.instances).toEqual([19, 640]);
    expect(world.checkpoints.status.computing).toBe(false);
  });

  it("after `close` nothing is begun, announced or left open", async () => {
    const world = new World();
    world.held = true;
    await world.to(18);
    await world.step();
    world.checkpoints.close();
    for (const then of world.waiting.splice(0)) then();
    await world.to(70);
    expect([world.instances, world.open, world.errors]).toEqual([[], [], []]);
  });
});

describe("checkpoints on request", () => {
  it("when there is none, at once; else only for a root not there yet, and spaced", async () => {
    const world = new World();
    await world.to(5);
    world.checkpoints.requested(0);
    world.checkpoints.requested(6);
    expect(world.checkpoints.status.computing).toBe(false);
    world.checkpoints.requested(1);
    await world.clock.run();
    expect(world.instances).toEqual([5]);
    world.checkpoints.requested(3);
    await world.to(8);
    world.checkpoints.requested(7);
    await world.clock.run(4 * SECOND_US);
    world.checkpoints.requested(7);
    await world.clock.run();
    expect(world.instances).toEqual([5]);
    await world.clock.run(SECOND_US);
    world.checkpoints.requested(7);
    await world.clock.run();
    expect(world.instances).toEqual([5, 8]);
  });

  it("do not shorten the log: whoever keeps asking could else take it from the others", async () => {
    const world = new World();
    await world.to(59);
    expect(world.journal.base.instance).toBe(19);
    for (let instance = 62; instance <= 90; instance += 4) {
      await world.to(instance);
      await world.clock.run(6 * SECOND_US);
      world.checkpoints.requested(instance);
      await world.clock.run();
    }
    expect(world.instances.length).toBeGreaterThan(8);
    expect(world.journal.base.instance).toBe(19);
    expect(logNeededFrom(decodeRoots(world.state.note("roots") ?? utf8("")), (kind) => kind === "checkpoint")).toBe(20);
    await world.to(99);
    expect(world.journal.base.instance).toBe(59);
  });

  it("unless the log is too long; that asks for checkpoints by itself, spaced", async () => {
    const world = new World();
    await world.to(21);
    world.journal.logBytes = LOG_BYTES_MAX + 1;
    await world.to(25);
    expect(world.instances).toEqual([19, 22]);
    await world.clock.run(29 * SECOND_US);
    await world.to(26);
    world.checkpoints.requested(26);
    await world.clock.run();
    expect(world.journal.truncated).toEqual([20, 23]);
    await world.clock.run(2 * SECOND_US);
    await world.to(28);
    expect(world.instances).toEqual([19, 22, 26, 27]);
    expect(world.journal.base.instance).toBe(26);
  });
});

describe("pins", () => {
  const indexes = (world: World): number[] => world.checkpoints.images.all.map(({ instance }) => instance);
  const use = (world: World, instance: number, receiver: number, index: number | null): void => {
    const held = world.checkpoints.images.all.find((one) => one.instance === instance);
    if (!held) throw new Error(`no image at ${instance}`);
    world.checkpoints.images.used(held, receiver, index);
  };

  it("a superseded checkpoint and the log above it stay while a receiver makes progress, a minute long", async () => {
    const world = new World();
    await world.to(59);
    use(world, 59, 2, null);
    await world.clock.run(SECOND_US);
    await world.to(99);
    await world.to(139);
    expect(indexes(world)).toEqual([139, 59]);
    expect(world.checkpoints.offers().map(({ instance }) => instance)).toEqual([139, 59]);
    expect(world.journal.base.instance).toBe(59);
    await world.clock.run(30 * SECOND_US);
    use(world, 59, 2, 0);
    await world.clock.run(40 * SECOND_US);
    // Asked again for the same: no progress.
    use(world, 59, 2, 0);
    expect(indexes(world)).toEqual([139, 59]);
    await world.clock.run(21 * SECOND_US);
    expect(indexes(world)).toEqual([139]);
    expect(world.open).toEqual([139]);
    expect(world.journal.base.instance).toBe(99);
    expect(world.clock.timers).toBe(0);
  });

  it("of two at most, the newest", async () => {
    const world = new World();
    for (const instance of [19, 59, 99]) {
      await world.to(instance);
      use(world, instance, 2, 0);
    }
    await world.to(139);
    expect(indexes(world)).toEqual([139, 99, 59]);
    expect(world.journal.base.instance).toBe(59);
  });

  it("do not hold a log that grows without bound", async () => {
    const world = new World();
    await world.to(59);
    use(world, 59, 2, 0);
    world.journal.logBytes = 2 * LOG_BYTES_MAX + 1;
    await world.to(99);
    await world.to(139);
    expect(indexes(world)).toContain(59);
    expect(world.journal.base.instance).toBeGreaterThanOrEqual(99);
  });

  it("not beyond what a transfer may take, however much a receiver asks", async () => {
    const world = new World();
    await world.to(59);
    use(world, 59, 2, 0);
    await world.to(99);
    for (let second = 0; second < 630 && indexes(world).includes(59); second += 30) {
      // The manifest may be asked for again and again.
      use(world, 59, 2, null);
      await world.clock.run(MINUTE_US / 2);
    }
    expect(indexes(world)).toEqual([99]);
  });

  it("an image dropped while it is read stays open until that ends", async () => {
    const world = new World();
    await world.to(59);
    const held = world.checkpoints.images.newest;
    let finish = (): void => undefined;
    const reading = held?.reading(
      () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    );
    await world.to(99);
    expect(indexes(world)).toEqual([99]);
    expect(world.open).toEqual([59, 99]);
    finish();
    await reading;
    expect(world.open).toEqual([99]);
  });
});

describe("the roots of one's own", () => {
  const root = (instance: number, kind: OwnRoot["kind"] = "checkpoint"): OwnRoot => ({
    kind,
    instance,
    root: nodeCrypto.sha256(utf8(`${instance}`)),
    signature: Buffer.alloc(64, instance),
  });

  it("decode to what was encoded", () => {
    const roots = [root(9), root(7, "common"), root(5, "requested")];
    expect(decodeRoots(encodeRoots(roots))).toEqual(roots);
    expect(decodeRoots(encodeRoots([]))).toEqual([]);
    expect(() => decodeRoots(encodeRoots(roots).subarray(1))).toThrow();
  });

  it("are the last few, but the two newest checkpoints stay", () => {
    let roots: OwnRoot[] = [];
    for (const instance of [1, 2, 3]) roots = withRoot(roots, root(instance));
    for (let instance = 10; instance < 50; instance++) roots = withRoot(roots, root(instance, "requested"));
    expect(roots).toHaveLength(ROOTS_KEPT);
    expect(roots.slice(-3).map(({ instance }) => instance)).toEqual([36, 3, 2]);
    expect(logNeededFrom(roots, (kind) => kind === "checkpoint")).toBe(3);
    expect(logNeededFrom(roots.slice(0, -1), (kind) => kind === "checkpoint")).toBeNull();
    expect(withRoot(roots, root(3, "common"))).toEqual(roots);
  });
});
