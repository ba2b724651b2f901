/**
 * What happens to disks, and the atlas of what that costs: at any time at most f replicas lie or are *recovering*, which
 * means that they may not know what they said; and at most f are without a sound state, which others keep. A replica that has
 * recovered counts no longer, so losses move on from one to the next (docs/protocol.md section 4, "Lost journal", and section 6).
 *
 * A disk that was rolled back is recovering like one that was lost. Whether anybody can show the replica that it is older
 * than its votes depends on who was told of them: until it knows, nothing it says is held against it.
 */
import type { DiskCopy } from "./disk.ts";
import type { Machine } from "./machine.ts";
import type { World } from "./world.ts";

/** When a replica that lost something has recovered. */
interface Mark {
  /** It has executed this instance. */
  readonly instance: number;
  /** It is in this view and regency, or above; counts while nothing made it ask. */
  readonly view: number;
  readonly regency: number;
}

export type DiskFault = "state-damage" | "journal-damage" | "lost-disk" | "rollback";

export class DiskFaults {
  readonly #world: World;
  readonly #crash: (machine: Machine) => void;
  readonly #recovering = new Map<Machine, Mark>();
  /** Until it has executed this instance. */
  readonly #stateless = new Map<Machine, number>();
  readonly #copies = new Map<Machine, DiskCopy>();
  /** Whose journal was damaged under it: it goes on until it reads there, perhaps through several starts. */
  readonly #latent = new Set<Machine>();

  constructor(world: World, crash: (machine: Machine) => void) {
    this.#world = world;
    this.#crash = crash;
  }

  /** Who has recovered by now? */
  look(): void {
    for (const [machine, mark] of [...this.#recovering]) if (this.#recovered(machine, mark)) this.#forgive(machine);
  }

  /** Replicas that may have said what they do not know any more. */
  get recovering(): ReadonlySet<Machine> {
    this.look();
    return new Set(this.#recovering.keys());
  }

  /** Damages a disk within the atlas. @returns the victim, which has to be started again when it is down; null: none fits */
  inject(kind: DiskFault): Machine | null {
    if (kind === "state-damage") return this.#damageState();
    const candidates = this.#mayForget();
    if (candidates.length === 0) return null;
    const machine = this.#world.scheduler.random.pick(candidates);
    if (kind === "rollback") return this.#rollBack(machine);
    return kind === "lost-disk" ? this.#lose(machine) : this.#damageJournal(machine);
  }

  // ---- the atlas

  get #trusted(): Machine[] {
    return this.#world.machines.filter((machine) => machine.trusted && machine.state !== "stopping");
  }

  /** Whose disk may go: whoever is recovering anyhow, or anybody while there is room. */
  #mayForget(): Machine[] {
    const { recovering } = this;
    const { machines, options } = this.#world;
    const liars = new Set(machines.filter((machine) => !machine.trusted).map((machine) => machine.self));
    const room = options.f - liars.size - recovering.size;
    const stateless = this.#withoutState();
    return this.#trusted.filter((machine) => {
      const mayForget = room > 0 || recovering.has(machine);
      return mayForget && (stateless.size < options.f || stateless.has(machine));
    });
  }

  #withoutState(): ReadonlySet<Machine> {
    for (const [machine, instance] of [...this.#stateless]) {
      const { replica } = machine;
      if (replica && machine.disk.sound && replica.executedInstance >= instance) this.#stateless.delete(machine);
    }
    return new Set([...this.#stateless.keys(), ...this.recovering]);
  }

  /** By what we know and the replica does not: nothing it may have said is open any more. */
  #recovered(machine: Machine, { instance, view, regency }: Mark): boolean {
    const { replica, disk, forgetful } = machine;
    if (!replica || machine.state !== "up" || !disk.sound || replica.executedInstance < instance) return false;
    const { state } = replica.core;
    if (state.forgotten || !state.heard) return false;
    const above = state.view > view || (state.view === view && state.regency >= regency);
    return !forgetful || (replica.executedInstance > instance && above);
  }

  #forgive(machine: Machine): void {
    this.#recovering.delete(machine);
    this.#latent.delete(machine);
    this.#world.trace.count("recovered from a loss");
    if (!machine.forgetful) return;
    machine.forgetful = false;
    this.#world.trace.count("rolled back unnoticed");
    this.#world.tell((observer) => observer.unnoticed?.({ replica: machine.self }));
  }

  #forgets(machine: Machine): void {
    const { decided, view, regencies } = this.#world;
    // Whoever voted in an instance had decided the one before.
    this.#recovering.set(machine, {
      instance: decided + 1,
      view: view.id,
      regency: regencies.get(view.id) ?? 0,
    });
    this.#world.tell((observer) => observer.lost?.({ replica: machine.self }));
  }

  /** A replica is about to say what its disk holds. */
  started(machine: Machine): void {
    if (this.#latent.has(machine)) this.#world.tell((observer) => observer.lost?.({ replica: machine.self }));
  }

  /** What the replica had forgotten does not matter any more; nor does a rollback of its disk, if it knew of that. */
  remembered(machine: Machine): void {
    if (machine.aware) machine.forgetful = false;
  }

  #rolledBack(machine: Machine): void {
    machine.forgetful = true;
    machine.aware = false;
  }

  /**
   * Whether those that lost their state, and have not fetched one yet, find enough that have it when these are dead. The log does
   * not lead there: everybody may have dropped what a replica that lags would need of it.
   */
  canSpare(dead: ReadonlySet<Machine>): boolean {
    const stateless = this.#withoutState();
    const lost = [...this.#stateless].filter(([machine]) => !dead.has(machine)).map(([, instance]) => instance);
    if (lost.length === 0) return true;
    const needed = Math.max(...lost);
    const having = this.#trusted.filter((machine) => {
      const executed = machine.replica?.executedInstance ?? 0;
      return !dead.has(machine) && !stateless.has(machine) && executed >= needed;
    });
    const { mode, f } = this.#world.options;
    return having.length >= (mode === "cft" ? 1 : f + 1);
  }

  // ---- what happens

  #lose(machine: Machine): Machine {
    this.#crash(machine);
    machine.disk.lose();
    machine.forgetful = false;
    this.#forgets(machine);
    return machine;
  }

  /** Half of the time the disk of a running replica: it finds out by reading, or by its scrub. */
  #damageJournal(machine: Machine): Machine | null {
    const { random } = this.#world.scheduler;
    const { disk } = machine;
    const records = disk.records("journal");
    if (records === 0 || machine.state === "starting") return null;
    const drop = random.chance(0.3);
    if (drop || random.chance(0.5)) this.#crash(machine);
    if (machine.state !== "down") this.#latent.add(machine);
    // With the crash the only writes may have gone; that alone forgets nothing.
    const left = disk.records("journal");
    if (left === 0) return machine;
    const damaged = { store: "journal", record: random.below(left) } as const;
    // The newest record alone leaves no trace: that is a disk rolled back by one write, which is no crash fault.
    const gone = drop && !(this.#world.options.mode === "cft" && disk.isNewest(damaged));
    if (gone) {
      disk.dropRecord(damaged);
      this.#rolledBack(machine);
    } else disk.flipByte({ ...damaged, byte: random.below(1_000), mask: 1 << random.below(8) });
    this.#forgets(machine);
    return machine;
  }

  #damageState(): Machine | null {
    const stateless = this.#withoutState();
    const { machines, options, scheduler, decided } = this.#world;
    const { random } = scheduler;
    // A liar is a fault as well: who lags beyond all logs needs two correct ones that have a state.
    const liars = new Set(machines.filter((machine) => !machine.trusted).map(({ self }) => self)).size;
    const candidates = this.#trusted.filter((machine) => {
      const fits = stateless.size + liars < options.f || stateless.has(machine);
      return fits && machine.state !== "starting" && machine.disk.records("state") > 0;
    });
    if (candidates.length === 0) return null;
    const machine = random.pick(candidates);
    if (random.chance(0.5)) this.#crash(machine);
    // With the crash the only writes may have gone.
    const records = machine.disk.records("state");
    if (records === 0) return machine;
    const record = random.below(records);
    machine.disk.flipByte({ store: "state", record, byte: random.below(1_000), mask: 1 << random.below(8) });
    this.#stateless.set(machine, decided);
    return machine;
  }

  /** Takes a copy, or puts back one that was taken earlier. */
  #rollBack(machine: Machine): Machine | null {
    const copy = this.#copies.get(machine);
    const { random } = this.#world.scheduler;
    if (!copy || random.chance(0.3)) {
      if (machine.disk.sound) this.#copies.set(machine, machine.disk.copy());
      return null;
    }
    this.#crash(machine);
    machine.disk.restore(copy);
    this.#rolledBack(machine);
    this.#forgets(machine);
    return machine;
  }
}
