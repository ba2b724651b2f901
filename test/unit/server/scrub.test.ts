import { describe, expect, it } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { QuorateError } from "../../../protocol/errors.ts";
import { Scrub, type ScrubPace, type ScrubPort } from "../../../server/archive/scrub.ts";
import { SimulatedDisk } from "../../simulation/disk.ts";
import { asAppend, at, FOUNDING, historyOf } from "../storage/history.ts";
import { CLUSTER, FakeClock, MemoryJournal, MemoryState, someEntries } from "./fixture.ts";

const SECOND_US = 1_000_000;
const PACE: ScrubPace = { pieceBytes: 4096, share: 0.02, firstUs: SECOND_US, intervalUs: 1000 * SECOND_US };

class World {
  readonly clock = new FakeClock();
  readonly journal = new MemoryJournal();
  readonly state = new MemoryState();
  readonly damage: QuorateError[] = [];
  readonly errors: unknown[] = [];
  /** Clock time that each piece takes. */
  readUs = 0;
  readonly pieces: { store: string; us: number }[] = [];
  readonly port: ScrubPort;
  readonly scrub: Scrub;

  constructor(records: number, entries: number) {
    this.journal.grow(records);
    this.state.applied = { instance: records, digest: this.journal.records.at(-1)?.digest ?? "", timestampMs: 0 };
    for (const [key, value] of someEntries(entries, 100)) this.state.values.set(key, value);
    const { range } = this.journal;
    this.journal.range = (options) => {
      this.#piece("journal");
      return range.call(this.journal, { ...options, maxRecords: Math.min(options.maxRecords, 10) });
    };
    const { chunks: read } = this.state;
    this.state.chunks = (options) => {
      this.#piece("state");
      return read.call(this.state, options);
    };
    this.port = {
      clock: this.clock,
      wallMs: () => this.clock.wallMs(),
      damaged: (error) => this.damage.push(error),
      failed: (error) => this.errors.push(error),
    };
    const { journal, state, port } = this;
    this.scrub = new Scrub({ crypto: nodeCrypto, cluster: CLUSTER, journal, state, pace: PACE, port });
  }

  #piece(store: string): void {
    this.pieces.push({ store, us: this.clock.us });
    this.clock.us += this.readUs;
  }

  get stores(): string[] {
    return this.pieces.map(({ store }) => store).filter((store, at, all) => store !== all[at - 1]);
  }
}

describe("the scrub", () => {
  it("reads all of the journal, then all of the state, in small pieces, and again after a while", async () => {
    const world = new World(95, 300);
    expect(world.scrub.progress).toEqual({ pass: 0, store: null, lastCompletedMs: null });
    world.scrub.start();
    await world.clock.run(SECOND_US + 25_000);
    expect(world.scrub.progress).toEqual({ pass: 1, store: "journal", lastCompletedMs: null });
    await world.clock.run(100 * SECOND_US);
    expect(world.scrub.progress).toMatchObject({ pass: 1, store: null });
    expect(world.scrub.progress.lastCompletedMs).toBeGreaterThan(0);
    expect(world.stores).toEqual(["journal", "state"]);
    expect(world.pieces.filter(({ store }) => store === "journal")).toHaveLength(10);
    expect(world.pieces.filter(({ store }) => store === "state").length).toBeGreaterThanOrEqual(7);
    await world.clock.run(1000 * SECOND_US);
    expect(world.scrub.progress.pass).toBe(2);
    expect(world.stores).toEqual(["journal", "state", "journal", "state"]);
    expect([world.damage, world.errors]).toEqual([[], []]);
  });

  it("takes no more than its share of the time", async () => {
    const world = new World(95, 300);
    world.readUs = 5_000;
    world.scrub.start();
    await world.clock.run(100 * SECOND_US);
    const between = world.pieces.slice(1).map(({ us }, at) => us - (world.pieces[at]?.us ?? 0));
    expect(between.length).toBeGreaterThan(10);
    for (const us of between) expect(us).toBeGreaterThanOrEqual(5_000 / PACE.share);
  });

  it("finds a batch that changed, a digest that does not continue, and a record that is gone", async () => {
    const damages: ((journal: MemoryJournal) => void)[] = [
      ({ records }) => records.splice(41, 1, { ...record(records, 41), batch: utf8("x") }),
      ({ records }) => records.splice(41, 1, { ...record(records, 41), digest: "d".repeat(32) }),
      ({ records }) => records.splice(41, 1),
      ({ records }) => records.splice(40, 10),
    ];
    for (const damage of damages) {
      const world = new World(95, 10);
      damage(world.journal);
      world.scrub.start();
      await world.clock.run(100 * SECOND_US);
      expect(world.damage).toHaveLength(1);
      expect(world.damage[0]).toMatchObject({ code: "STORAGE_DAMAGED", detail: { store: "journal" } });
      expect(world.damage[0]?.detail.instance).toBeGreaterThan(40);
      const pieces = world.pieces.length;
      await world.clock.run(5000 * SECOND_US);
      expect(world.pieces.length).toBe(pieces);
    }
  });

  it("passes on what reading the state finds, with the name of the store; other errors apart", async () => {
    for (const error of [new QuorateError("STORAGE_DAMAGED", "damaged"), new Error("closed")]) {
      const world = new World(20, 10);
      world.state.chunks = async function* () {
        yield await Promise.reject(error);
      };
      world.scrub.start();
      await world.clock.run(100 * SECOND_US);
      if (error instanceof QuorateError) expect(world.damage[0]?.detail).toEqual({ store: "state" });
      expect([world.damage.length, world.errors.length]).toEqual(error instanceof QuorateError ? [1, 0] : [0, 1]);
    }
  });

  it("a log that is truncated meanwhile is not damage; what is not executed yet is not looked at", async () => {
    const world = new World(95, 10);
    world.journal.records.splice(94, 1, { ...record(world.journal.records, 94), digest: "d".repeat(32) });
    world.state.applied = { ...world.state.applied, instance: 94 };
    world.scrub.start();
    await world.clock.run(SECOND_US + 15_000);
    expect(world.pieces).toHaveLength(2);
    await world.journal.truncate(60);
    await world.clock.run(100 * SECOND_US);
    expect(world.scrub.progress.lastCompletedMs).not.toBeNull();
    expect([world.damage, world.errors]).toEqual([[], []]);
  });

  it("nor is a log while the write that drops its beginning is under way", async () => {
    const held: (() => void)[] = [];
    let holding = false;
    const disk = new SimulatedDisk({
      schedule: (complete) => (holding ? held.push(complete) : queueMicrotask(complete)),
    });
    const { journal, state } = await disk.open({ founding: FOUNDING });
    const records = historyOf({ count: 200 });
    await journal.append(records.map(asAppend));
    const { digest } = at(records, 200);
    await state.write({ changes: new Map(), applied: { instance: 200, digest, timestampMs: 200 } });
    const { clock, port, damage, errors } = new World(1, 1);
    const scrub = new Scrub({ crypto: nodeCrypto, cluster: FOUNDING.cluster, journal, state, pace: PACE, port });
    scrub.start();
    await clock.run(SECOND_US + 15_000);
    expect(scrub.progress.store).toBe("journal");
    holding = true;
    const dropped = journal.truncate(150);
    await clock.run(SECOND_US);
    expect(held).toHaveLength(1);
    expect([damage, errors, scrub.progress.store]).toEqual([[], [], "journal"]);
    holding = false;
    for (const complete of held) complete();
    await dropped;
    await clock.run(100 * SECOND_US);
    expect(scrub.progress.lastCompletedMs).not.toBeNull();
    expect([damage, errors]).toEqual([[], []]);
    scrub.stop();
  });

  it("nor is a log that is truncated in the middle of a piece", async () => {
    const world = new World(95, 10);
    const { range } = world.journal;
    let pieces = 0;
    world.journal.range = async (options) => {
      if (++pieces === 3) await world.journal.truncate(60);
      return range.call(world.journal, options);
    };
    world.scrub.start();
    await world.clock.run(100 * SECOND_US);
    expect(world.scrub.progress.lastCompletedMs).not.toBeNull();
    expect([world.damage, world.errors]).toEqual([[], []]);
    // What is left of the log was read to its end.
    expect(pieces).toBe(3 + 4);
  });

  it("ends when it is stopped", async () => {
    const world = new World(95, 10);
    world.scrub.start();
    await world.clock.run(SECOND_US + 15_000);
    world.scrub.stop();
    expect(world.clock.timers).toBe(0);
    await world.clock.run(5000 * SECOND_US);
    expect(world.pieces).toHaveLength(2);
  });
});

function record(records: MemoryJournal["records"], at: number): MemoryJournal["records"][number] {
  const found = records[at];
  if (!found) throw new Error(`no record ${at}`);
  return found;
}
