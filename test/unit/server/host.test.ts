/** What a host does about its disk, one replica of four whose peers are silent (docs/protocol.md sections 6 and 8). */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Cluster } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { QuorateError } from "../../../protocol/errors.ts";
import { Host } from "../../../server/host.ts";
import type { Gateway, Links } from "../../../server/network/contract.ts";
import { kvService } from "../../../server/service/kv-service.ts";
import type { Storage } from "../../../storage/contract.ts";
import { SimulatedDisk } from "../../simulation/disk.ts";
import { CLUSTER, FakeClock, GENESIS, identityOf, viewOfSize } from "./fixture.ts";

const cluster: Cluster = {
  id: CLUSTER,
  view: viewOfSize(4),
  genesis: GENESIS,
  clients: "open",
  signedRequests: false,
  maxClients: 100,
  origin: null,
};
const options = {
  batchRequestsMax: 100,
  batchBytesMax: 100_000,
  batchWaitUs: 20_000,
  clockDriftMs: 5_000,
  requestTimeoutMs: 1_000,
  statusIntervalMs: 500,
  executionLagMax: 16,
  emptyLagMax: 64,
};
const nobody = (): never => {
  throw new Error("nobody is there");
};
const noLinks: Links = {
  send: () => undefined,
  flush: () => undefined,
  punish: nobody,
  connected: () => [],
  queuedBytes: () => 0,
  close: async () => undefined,
};
const noGateway: Gateway = {
  port: 0,
  connectionOf: nobody,
  connections: 0,
  queuedBytes: 0,
  close: async () => undefined,
};

/** One process after another on the same disk. */
class World {
  readonly clock = new FakeClock();
  readonly disk = new SimulatedDisk();
  readonly fatal: unknown[] = [];
  readonly said: { level: string; detail: Record<string, unknown>; message: string }[] = [];
  repairs = 0;
  /** So often the directory was opened, or tried to be. */
  opened = 0;
  /** Is there what the cluster begins with? */
  founding: "ready" | "gone" = "ready";
  /** What opening it waits for. */
  gate: Promise<void> | null = null;
  /** Why it cannot be opened. */
  refusal: QuorateError | null = null;
  /** What the disk says of itself. */
  full = (): boolean => this.disk.full;
  /** What the process has open. */
  storage: Storage | null = null;
  host = this.#process();

  #process(): Host {
    const log = (level: string) => (detail: Record<string, unknown>, message: string) =>
      void this.said.push({ level, detail, message });
    const ignored = (): void => undefined;
    return new Host({
      cluster,
      self: 3,
      identityOf: () => identityOf(3),
      crypto: nodeCrypto,
      openStorage: async (founding) => {
        this.opened++;
        await this.gate;
        if (this.refusal) throw this.refusal;
        this.storage = await this.disk.open({ founding });
        return this.storage;
      },
      openLinks: async () => noLinks,
      openGateway: async () => noGateway,
      service: kvService,
      options,
      checkpointPeriod: 128,
      clock: this.clock,
      verifier: nobody,
      logger: { info: log("info"), warn: log("warn"), error: log("error") },
      hasSpace: async () => !this.full(),
      found: async () => this.founding,
      retired: nobody,
      fatal: (error) => this.fatal.push(error),
      observer: {
        decided: nobody,
        phase: ignored,
        fault: nobody,
        clientFault: nobody,
        suspected: nobody,
        regencyInstalled: nobody,
        fetched: ignored,
        repaired: () => {
          this.repairs++;
        },
        checkpoint: ignored,
        rootMismatch: nobody,
      },
    });
  }

  /** @throws what the start throws */
  async start(): Promise<void> {
    const started = this.host.start();
    started.catch(() => undefined);
    await this.clock.run();
    await started;
  }

  async stop(): Promise<void> {
    const stopped = this.host.stop(0);
    await this.clock.run(1_000_000);
    await stopped;
  }

  async restart(): Promise<void> {
    await this.stop();
    this.host = this.#process();
    await this.start();
  }

  get alarms(): string[] {
    return this.host.alarms.map(({ code, detail }) => `${code}: ${detail}`);
  }
}

let world: World;
beforeEach(async () => {
  world = new World();
});
afterEach(() => world.stop());

/** The replica meets damage. */
async function damage(store: "journal" | "state", why: string): Promise<void> {
  world.host.replica?.halt(new QuorateError("STORAGE_DAMAGED", why, { store }));
  await world.clock.run();
}

describe("damage at run time", () => {
  it("is said once, with its cause and where the old store lies", async () => {
    await world.start();
    await damage("state", "a bit has turned");
    expect(world.host.stage.type).toBe("replica");
    expect(world.alarms).toEqual([
      "REPAIRED: the state store was begun anew: a bit has turned; what was there lies in aside/state-1",
    ]);
    const warnings = world.said.filter(({ level }) => level === "warn");
    expect(warnings.map(({ detail }) => detail)).toEqual([
      { store: "state", reason: "a bit has turned", setAside: "aside/state-1" },
    ]);
    expect(world.repairs).toBe(1);
  });

  it("of both stores: neither alarm hides the other", async () => {
    await world.start();
    await damage("state", "a bit has turned");
    await damage("journal", "a record is missing");
    expect(world.alarms.map((alarm) => alarm.split(": ").slice(0, 3))).toEqual([
      ["REPAIRED", "the state store was begun anew", expect.stringContaining("a bit has turned")],
      ["REPAIRED", "the journal store was begun anew", expect.stringContaining("a record is missing")],
    ]);
    expect(world.repairs).toBe(2);
  });

  it("a store that is gone is damage", async () => {
    await world.start();
    await world.host.lookAtStores();
    await world.clock.run();
    expect(world.alarms).toEqual([]);
    if (world.storage) world.storage.lost = async () => "state";
    await world.host.lookAtStores();
    await world.clock.run();
    expect(world.host.stage.type).toBe("replica");
    expect(world.alarms.join()).toContain("the files of the state store are not where they were opened any more");
  });
});

describe("a full disk", () => {
  it("at the start: stands, says so, looks every second, and goes on by itself", async () => {
    world.disk.fill();
    await world.start();
    expect(world.host.stage.type).toBe("full");
    expect(world.alarms).toEqual(["DISK_FULL: nothing is acknowledged"]);
    expect(world.host.diskLow).toBe(true);
    await world.clock.run(10_000_000);
    expect(world.host.stage.type).toBe("full");
    world.disk.mend();
    await world.clock.run(1_000_000);
    expect(world.host.stage.type).toBe("replica");
    expect([world.alarms, world.host.diskLow, world.fatal]).toEqual([[], false, []]);
  });

  it("that has room by its own account is tried once a second", async () => {
    world.full = () => false;
    world.disk.fill();
    await world.start();
    const attempts = world.opened;
    await world.clock.run(5_500_000);
    expect(world.opened).toBe(attempts + 5);
    expect(world.host.stage.type).toBe("full");
  });

  it("at run time: disk use stays what it was last", async () => {
    await world.start();
    const use = await world.host.diskUse();
    expect(use.journalBytes).toBeGreaterThan(0);
    world.disk.fill();
    world.host.replica?.halt(new QuorateError("STORAGE_FULL", "no room", { store: "journal" }));
    await world.clock.run();
    expect(world.host.stage.type).toBe("full");
    expect(await world.host.diskUse()).toEqual(use);
  });

  it("below the reserve: an alarm since then, until there is room", async () => {
    await world.start();
    const sinceMs = world.clock.wallMs();
    world.host.diskLow = true;
    await world.clock.run(2_000_000);
    world.host.diskLow = true;
    const detail = expect.stringContaining("refused with STORAGE_FULL");
    expect(world.host.alarms).toEqual([{ code: "DISK_LOW", detail, sinceMs }]);
    expect(world.host.replica?.diskLow).toBe(true);
    world.host.diskLow = false;
    expect([world.host.alarms, world.host.diskLow]).toEqual([[], false]);
  });

  it("a stop does not wait for room", async () => {
    world.disk.fill();
    await world.start();
    await world.stop();
    expect([world.host.stage.type, world.fatal]).toEqual(["ended", []]);
  });
});

describe("a stop between two stages", () => {
  it.each(["replica", "transfer"] as const)("is one all the same, though a %s would begin", async (next) => {
    await world.start();
    if (next === "transfer") world.founding = "gone";
    let opens: () => void = () => undefined;
    world.gate = new Promise((resolve) => {
      opens = resolve;
    });
    await damage("state", "a bit has turned");
    expect(world.host.stage.type).toBe("opening");
    const stopped = world.stop();
    opens();
    await stopped;
    expect([world.host.stage.type, world.fatal]).toEqual(["ended", []]);
  });
});

describe("what cannot be mended", () => {
  const LOCKED = new QuorateError("STORAGE_LOCKED", "another server has it");

  it("before anything stands is the error of the start, and nobody else hears of it", async () => {
    world.refusal = LOCKED;
    await expect(world.start()).rejects.toBe(LOCKED);
    expect([world.host.stage.type, world.fatal]).toEqual(["ended", []]);
  });

  it("later ends the process", async () => {
    world.disk.fill();
    await world.start();
    world.disk.mend();
    world.refusal = LOCKED;
    await world.clock.run(1_000_000);
    expect([world.host.stage.type, world.fatal]).toEqual(["ended", [LOCKED]]);
  });
});

describe("damage found at the start", () => {
  it("is counted and said", async () => {
    await world.start();
    await world.stop();
    world.disk.lose();
    await world.restart();
    expect(world.alarms).toEqual([
      "REPAIRED: the journal store was begun anew: the journal is missing: what this replica voted for is not known",
    ]);
    expect(world.repairs).toBe(1);
  });
});

describe("a founder without what its cluster begins with", () => {
  it("asks the others for the state, says so once, and no more when it has what it lacked", async () => {
    world.founding = "gone";
    await world.start();
    expect(world.host.stage.type).toBe("transfer");
    expect(world.alarms).toEqual([expect.stringMatching(/^SNAPSHOT_MISSING: .*copy the file from one of them/)]);
    world.founding = "ready";
    await world.restart();
    expect(world.host.stage.type).toBe("replica");
    expect(world.alarms).toEqual([]);
  });
});
