/**
 * The faults of a run, within the model: at any time at most f replicas lie or have lost what their disks should hold
 * (disk-faults.ts); every other one may crash, stand still or be cut off at any moment, all of them at once too. `heal` ends
 * everything: whoever lost its disk comes back and catches up.
 */
import { QuorateError } from "../../protocol/errors.ts";
import { memberOf } from "../../protocol/view.ts";
import type { Effect } from "../../server/consensus/contract.ts";
import { type DiskFault, DiskFaults } from "./disk-faults.ts";
import { HEALTHY_DISK_US, type Machine } from "./machine.ts";
import type { Plan, Recurring } from "./plan.ts";
import { WireFaults } from "./wire-faults.ts";
import type { World } from "./world.ts";

const MILLISECOND_US = 1_000;
const SECOND_US = 1_000_000;
/** An ambushed machine crashes this soon after it did something: before or after the disk, before or after the wire. */
const AMBUSH_US = 3 * MILLISECOND_US;
/** An ambush on a transfer comes within so many completed writes. */
const AMBUSH_WRITES = 12;
const SKEW_MS = 12_000;

export class Faults {
  readonly #world: World;
  readonly #plan: Plan;
  readonly #wires: WireFaults;
  readonly #disks: DiskFaults;
  readonly #ambushed = new Set<Machine>();
  /** Writes that a machine may still complete while it fetches a state. */
  readonly #transferAmbushed = new Map<Machine, number>();
  /** Machines whose disk was told to refuse: halting is what they should do. */
  readonly #refusing = new Set<Machine>();
  #dead: ReadonlySet<Machine> = new Set();
  #healed = false;

  constructor(world: World, plan: Plan) {
    this.#world = world;
    this.#plan = plan;
    this.#wires = new WireFaults(world, plan.troubleUs);
    this.#disks = new DiskFaults(world, (machine) => this.#crash(machine));
    world.onFailed = (machine, error) => this.#onFailed(machine, error);
    world.onEffects = (machine, effects) => this.#onEffects(machine, effects);
    world.onWrote = (machine) => this.#onWrote(machine);
    world.onStarted = (machine) => this.#disks.started(machine);
    world.onSample = () => this.#disks.look();
  }

  start(): void {
    const { scheduler, machines, network } = this.#world;
    network.profile = this.#plan.profile;
    const { drift } = this.#plan;
    for (const machine of machines) machine.clockRate = 1 + scheduler.between(-drift, drift);
    for (const [kind, meanUs] of this.#plan.everyUs) this.#again(kind, meanUs);
  }

  /**
   * Ends all faults. Whoever is down comes back, with whatever its disk holds, but for `deadAtLast` that stay dead: with
   * those that lie or are recovering no more than f, and none that alone have what others lost.
   * @returns the correct machines that live from now on
   */
  heal(): Machine[] {
    this.#healed = true;
    this.#ambushed.clear();
    this.#transferAmbushed.clear();
    const world = this.#world;
    this.#wires.heal();
    for (const client of world.clients) client.skewMs = 0;
    for (const machine of world.machines) {
      machine.skewMs = 0;
      machine.diskUs = HEALTHY_DISK_US;
      machine.disk.mend();
      machine.resume();
    }
    const correct = world.machines.filter((machine) => machine.trusted);
    const dead = this.#deadAtLast(correct.filter(({ self }) => memberOf(world.view, self)));
    for (const machine of world.machines) if (!dead.has(machine)) machine.start();
    this.#dead = dead;
    return correct.filter((machine) => !dead.has(machine));
  }

  #deadAtLast(correct: readonly Machine[]): ReadonlySet<Machine> {
    const { options, machines, scheduler } = this.#world;
    const liars = new Set(machines.filter((machine) => !machine.trusted).map((machine) => machine.self));
    const { recovering } = this.#disks;
    const dead = new Set<Machine>();
    for (let count = 0; count < this.#plan.deadAtLast; count++) {
      const room = options.f - liars.size - new Set([...recovering, ...dead]).size;
      const candidates = correct.filter((machine) => {
        const fits = room > 0 || recovering.has(machine);
        return !dead.has(machine) && fits && this.#disks.canSpare(new Set([...dead, machine]));
      });
      if (candidates.length === 0) break;
      const victim = scheduler.random.pick(candidates);
      dead.add(victim);
      this.#count("dead at last", victim);
      victim.crash({ keep: "all", linger: true });
    }
    return dead;
  }

  #running(): Machine[] {
    return this.#world.machines.filter((machine) => machine.state !== "down");
  }

  /** A process ended by itself. Whoever was told to fail comes back; of anybody else it is a bug. */
  #onFailed(machine: Machine, error: unknown): void {
    const code = error instanceof QuorateError ? error.code : null;
    if (this.#refusing.has(machine) && (code === "STORAGE_FULL" || code === "STORAGE_FAILED")) {
      this.#count("disk refused", machine);
      this.#restartSoon(machine);
    } else if (!machine.trusted) this.#restartSoon(machine);
    else this.#world.scheduler.fail(error);
  }

  #restartSoon(machine: Machine): void {
    const { scheduler } = this.#world;
    scheduler.after(scheduler.exponential(this.#plan.downUs), () => {
      if (!this.#dead.has(machine)) machine.start();
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
    "full-disk": () => this.#fill(),
    "disk-error": () => this.#refuse(),
    "state-damage": () => this.#damage("state-damage"),
    "journal-damage": () => this.#damage("journal-damage"),
    "lost-disk": () => this.#damage("lost-disk"),
    rollback: () => this.#damage("rollback"),
    "transfer-ambush": () => this.#ambushTransfer(),
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

  /** The next time a machine fetches a state, it crashes after a few writes: between any two steps of it. */
  #ambushTransfer(): void {
    const { machines, scheduler } = this.#world;
    const { random } = scheduler;
    const transferring = machines.filter((machine) => machine.host?.stage.type === "transfer");
    const machine = random.pick(transferring.length > 0 ? transferring : machines);
    this.#transferAmbushed.set(machine, 1 + random.below(AMBUSH_WRITES));
  }

  #onWrote(machine: Machine): void {
    const left = this.#transferAmbushed.get(machine);
    const stage = machine.host?.stage.type;
    if (left === undefined || (stage !== "transfer" && stage !== "opening")) return;
    this.#transferAmbushed.set(machine, left - 1);
    if (left > 1) return;
    this.#transferAmbushed.delete(machine);
    this.#count("transfer-ambush", machine);
    this.#crash(machine);
    this.#restartSoon(machine);
  }

  #onEffects(machine: Machine, effects: readonly Effect[]): void {
    if (effects.some((effect) => effect.type === "forgotten")) machine.aware = true;
    if (effects.some((effect) => effect.type === "remembered")) this.#disks.remembered(machine);
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
      if (this.#dead.has(machine)) return;
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
  #refuse(): void {
    const { random } = this.#world.scheduler;
    const machine = random.pick(this.#world.machines);
    this.#count("disk-error", machine);
    this.#refusing.add(machine);
    machine.disk.failWrite({ nth: 1 + random.below(4), code: "EIO", reachesDisk: random.chance(0.5) });
  }

  /** No room for one write, or for a while: the replica has to go on by itself. */
  #fill(): void {
    const { scheduler, machines } = this.#world;
    const { random } = scheduler;
    const machine = random.pick(machines);
    this.#count("full-disk", machine);
    this.#refusing.add(machine);
    if (random.chance(0.4)) {
      machine.disk.failWrite({ nth: 1 + random.below(4), code: "ENOSPC", reachesDisk: random.chance(0.5) });
      return;
    }
    machine.disk.fill();
    scheduler.after(scheduler.exponential(this.#plan.troubleUs), () => machine.disk.mend());
  }

  #damage(kind: DiskFault): void {
    const machine = this.#disks.inject(kind);
    if (!machine) return;
    this.#count(kind, machine);
    if (machine.state === "down") this.#restartSoon(machine);
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
