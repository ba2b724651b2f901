/**
 * The faults of a run, and the atlas that keeps them within the model: at any time at most f replicas lie or have lost
 * what their disks should hold; every other one may crash, stand still or be cut off at any moment, all of them at once
 * too. `heal` ends everything but what cannot be mended.
 */
import { QuorateError } from "../../protocol/errors.ts";
import type { Effect } from "../../server/consensus/contract.ts";
import { Violation } from "./contract.ts";
import { HEALTHY_DISK_US, type Machine } from "./machine.ts";
import type { Plan, Recurring } from "./plan.ts";
import { WireFaults } from "./wire-faults.ts";
import type { World } from "./world.ts";

const MILLISECOND_US = 1_000;
const SECOND_US = 1_000_000;
/** An ambushed machine crashes this soon after it did something: before or after the disk, before or after the wire. */
const AMBUSH_US = 3 * MILLISECOND_US;
const SKEW_MS = 12_000;

export class Faults {
  /** Correct replicas that can never come back. */
  readonly lost = new Set<Machine>();
  readonly #world: World;
  readonly #plan: Plan;
  readonly #wires: WireFaults;
  readonly #ambushed = new Set<Machine>();
  /** Machines whose disk was told to refuse: halting is what they should do. */
  readonly #refusing = new Set<Machine>();
  readonly #damaged = new Map<Machine, "journal" | "state" | "lost">();
  #dead: ReadonlySet<Machine> = new Set();
  #healed = false;

  constructor(world: World, plan: Plan) {
    this.#world = world;
    this.#plan = plan;
    this.#wires = new WireFaults(world, plan.troubleUs);
    world.onFailed = (machine, error) => this.#onFailed(machine, error);
    world.onStarted = (machine) => this.#onStarted(machine);
    world.onEffects = (machine, effects) => this.#onEffects(machine, effects);
  }

  start(): void {
    const { scheduler, machines, network } = this.#world;
    network.profile = this.#plan.profile;
    const { drift } = this.#plan;
    for (const machine of machines) machine.clockRate = 1 + scheduler.between(-drift, drift);
    for (const [kind, meanUs] of this.#plan.everyUs) this.#again(kind, meanUs);
  }

  /**
   * Ends all faults. Whoever is down comes back, but the lost and, of the rest of f, `deadAtLast` more that stay dead.
   * @returns the correct machines that live from now on
   */
  heal(): Machine[] {
    this.#healed = true;
    this.#ambushed.clear();
    const world = this.#world;
    const { random } = world.scheduler;
    this.#wires.heal();
    for (const client of world.clients) client.skewMs = 0;
    for (const machine of world.machines) {
      machine.skewMs = 0;
      machine.diskUs = HEALTHY_DISK_US;
      machine.disk.mend();
      machine.resume();
    }
    const dead = new Set(this.lost);
    const left = this.#room;
    for (let count = 0; count < Math.min(left, this.#plan.deadAtLast); count++) {
      const candidates = this.#correct().filter((machine) => !dead.has(machine));
      const victim = random.pick(candidates);
      dead.add(victim);
      this.#count("dead at last", victim);
      victim.crash({ keep: "all", linger: true });
    }
    for (const machine of world.machines) if (!dead.has(machine)) machine.start();
    this.#dead = dead;
    return this.#correct().filter((machine) => !dead.has(machine));
  }

  // ---- the atlas

  /** How many more replicas may fail for good. */
  get #room(): number {
    const { machines, options } = this.#world;
    const liars = new Set(machines.filter((machine) => !machine.trusted).map((machine) => machine.self));
    return options.f - liars.size - this.lost.size;
  }

  #correct(): Machine[] {
    return this.#world.machines.filter((machine) => machine.trusted && !this.lost.has(machine));
  }

  #running(): Machine[] {
    return this.#world.machines.filter((machine) => machine.state !== "down" && !this.lost.has(machine));
  }

  /** A process ended by itself. Whoever was told to fail comes back; of anybody else it is a bug. */
  #onFailed(machine: Machine, error: unknown): void {
    const code = error instanceof QuorateError ? error.code : null;
    const damage = this.#damaged.get(machine);
    if (damage === "state" && code === "STORAGE_DAMAGED") {
      this.#damaged.delete(machine);
      machine.disk.loseState();
      this.#restartSoon(machine);
    } else if (damage && (code === "STORAGE_DAMAGED" || code === "STORAGE_UNFOUNDED")) {
      this.#damaged.delete(machine);
    } else if (this.#refusing.has(machine) && (code === "STORAGE_FULL" || code === "STORAGE_FAILED")) {
      this.#count("disk refused", machine);
      this.#restartSoon(machine);
    } else if (!machine.trusted) this.#restartSoon(machine);
    else this.#world.scheduler.fail(error);
  }

  #onStarted(machine: Machine): void {
    const damage = this.#damaged.get(machine);
    if (damage)
      this.#world.scheduler.fail(
        new Violation("damage", `${machine.name} starts on a ${damage} store that was damaged`),
      );
  }

  #restartSoon(machine: Machine): void {
    const { scheduler } = this.#world;
    scheduler.after(scheduler.exponential(this.#plan.downUs), () => {
      if (!this.lost.has(machine) && !this.#dead.has(machine)) machine.start();
    });
  }

  // ---- when faults happen

  #again(kind: Recurring, meanUs: number): void {
    const { scheduler } = this.#world;
    scheduler.after(scheduler.exponential(meanUs), () => {
      if (this.#healed) return;
      this.#injections[kind]();
      this.#again(kind, meanUs);
    });
  }

  readonly #injections: Readonly<Record<Recurring, () => void>> = {
    split: () => this.#wires.partition("split"),
    "one-way": () => this.#wires.partition("one-way"),
    partial: () => this.#wires.partition("partial"),
    isolate: () => this.#wires.partition("isolate"),
    bridge: () => this.#wires.partition("bridge"),
    flapping: () => this.#wires.flap(),
    clog: () => this.#wires.clog(),
    crash: () => this.#crashOne(),
    ambush: () => this.#ambush(),
    power: () => this.#power(),
    restart: () => this.#restart(),
    pause: () => this.#pause(),
    "slow-disk": () => this.#slowDisk(),
    "full-disk": () => this.#refuse("full-disk"),
    "disk-error": () => this.#refuse("disk-error"),
    "state-damage": () => this.#damage("state-damage"),
    "journal-damage": () => this.#damage("journal-damage"),
    "lost-disk": () => this.#damage("lost-disk"),
    skew: () => this.#skew(),
    "client-restart": () => this.#restartClient(),
  };

  // ---- machines

  #crash(machine: Machine): void {
    const { random } = this.#world.scheduler;
    const keep = random.pick(["none", "all", () => random.chance(0.5)] as const);
    machine.crash({ keep, linger: random.chance(0.7) });
  }

  #crashOne(): void {
    const running = this.#running();
    if (running.length === 0) return;
    const machine = this.#world.scheduler.random.pick(running);
    this.#count("crash", machine);
    this.#crash(machine);
    this.#restartSoon(machine);
  }

  /** The next time the machine does something that matters, it crashes. */
  #ambush(): void {
    const running = this.#running();
    if (running.length > 0) this.#ambushed.add(this.#world.scheduler.random.pick(running));
  }

  #onEffects(machine: Machine, effects: readonly Effect[]): void {
    if (!this.#ambushed.has(machine) || !effects.some(matters)) return;
    this.#ambushed.delete(machine);
    const { scheduler } = this.#world;
    scheduler.after(scheduler.random.next() * AMBUSH_US, () => {
      if (this.#healed || machine.state === "down") return;
      this.#count("ambush", machine);
      this.#crash(machine);
      this.#restartSoon(machine);
    });
  }

  #power(): void {
    const { scheduler, machines } = this.#world;
    for (const machine of machines) {
      if (machine.state === "down") continue;
      this.#count("power", machine);
      scheduler.after(scheduler.random.next() * 200 * MILLISECOND_US, () => {
        if (this.#healed || machine.state === "down") return;
        this.#crash(machine);
        this.#restartSoon(machine);
      });
    }
  }

  #restart(): void {
    const running = this.#running().filter((machine) => machine.state === "up");
    if (running.length === 0) return;
    const { scheduler } = this.#world;
    const victims = scheduler.random.chance(0.2) ? running : [scheduler.random.pick(running)];
    for (const machine of victims) {
      this.#count("restart", machine);
      machine.stop(scheduler.random.below(500));
      this.#startOnceDown(machine);
    }
  }

  #startOnceDown(machine: Machine): void {
    const { scheduler } = this.#world;
    scheduler.after(scheduler.exponential(this.#plan.downUs), () => {
      if (this.lost.has(machine) || this.#dead.has(machine)) return;
      if (machine.state === "stopping") this.#startOnceDown(machine);
      else machine.start();
    });
  }

  #pause(): void {
    const running = this.#running();
    if (running.length === 0) return;
    const { scheduler } = this.#world;
    const machine = scheduler.random.pick(running);
    this.#count("pause", machine);
    machine.pause();
    scheduler.after(scheduler.exponential(this.#plan.troubleUs * 2), () => machine.resume());
  }

  #slowDisk(): void {
    const { scheduler, machines } = this.#world;
    const machine = scheduler.random.pick(machines);
    this.#count("slow-disk", machine);
    machine.diskUs = { min: 5_000, max: 5_000 + scheduler.random.next() * SECOND_US };
    scheduler.after(scheduler.exponential(this.#plan.troubleUs), () => {
      machine.diskUs = HEALTHY_DISK_US;
    });
  }

  /** One of the next writes fails: the replica has to halt. */
  #refuse(kind: "full-disk" | "disk-error"): void {
    const { random } = this.#world.scheduler;
    const machine = random.pick(this.#world.machines);
    if (this.lost.has(machine)) return;
    this.#count(kind, machine);
    this.#refusing.add(machine);
    const code = kind === "full-disk" ? "ENOSPC" : "EIO";
    machine.disk.failWrite({ nth: 1 + random.below(4), code, reachesDisk: random.chance(0.5) });
  }

  /** Damage while the machine is down; that of a journal, and the loss of everything, is for good. */
  #damage(kind: "state-damage" | "journal-damage" | "lost-disk"): void {
    const { random } = this.#world.scheduler;
    const candidates = this.#correct().filter((machine) => machine.state !== "starting" && !this.#damaged.has(machine));
    if (candidates.length === 0 || (kind !== "state-damage" && this.#room <= 0)) return;
    const machine = random.pick(candidates);
    const store = kind === "state-damage" ? "state" : "journal";
    if (machine.disk.records(store) === 0) return;
    this.#count(kind, machine);
    this.#crash(machine);
    if (kind !== "state-damage") this.lost.add(machine);
    if (kind === "lost-disk") machine.disk.lose();
    else {
      const record = random.below(machine.disk.records(store));
      machine.disk.flipByte({ store, record, byte: random.below(1_000), mask: 1 << random.below(8) });
    }
    this.#damaged.set(machine, kind === "lost-disk" ? "lost" : store);
    // The supervisor tries once: what it finds must be refused.
    this.#world.scheduler.after(100 * MILLISECOND_US, () => machine.start());
  }

  #skew(): void {
    const { scheduler, machines, clients } = this.#world;
    const { random } = scheduler;
    const skewMs = Math.round(scheduler.between(-SKEW_MS, SKEW_MS));
    const victim = random.pick([...machines, ...clients]);
    victim.skewMs = skewMs;
    this.#world.trace.count("fault: skew");
    if (random.chance(0.5)) return;
    scheduler.after(scheduler.exponential(this.#plan.troubleUs), () => {
      victim.skewMs = 0;
    });
  }

  #restartClient(): void {
    const client = this.#world.scheduler.random.pick(this.#world.clients);
    if (!client.connected) return;
    this.#world.trace.count("fault: client-restart");
    client.restart();
  }

  #count(kind: string, machine: Machine): void {
    const { trace } = this.#world;
    trace.count(`fault: ${kind}`);
    trace.event("fault", machine.number, kind.length, 0, () => `${machine.name}: ${kind}`);
  }
}

/** A crash is worth most around what must survive it or must not be forgotten. */
function matters(effect: Effect): boolean {
  switch (effect.type) {
    case "journal":
    case "decide":
      return true;
    case "send":
    case "broadcast":
      return effect.message.type !== "STATUS";
    default:
      return false;
  }
}
