/**
 * How close a core schedule comes to trouble: conflicting write certificates in reach, accept records of different batches
 * for one instance, replicas split over regencies, regency after regency in which an instance is voted on again. Equal
 * dangers are one cell: guided runs (guided.ts) keep one schedule for each.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Message } from "../../protocol/messages.ts";
import type { View } from "../../protocol/view.ts";
import type { CoreCluster } from "./core-cluster.ts";

/** Who wrote and accepted one digest, by regency. */
interface Support {
  readonly writes: Map<number, Set<number>>;
  readonly accepts: Set<number>;
}

/** Numbers small enough that few combinations of them exist. */
export interface Danger {
  /** WRITEs for the second digest of one place. */
  readonly conflict: number;
  /** Digests of one instance that have a write certificate, beyond the first. */
  readonly rivals: number;
  /** Replicas that accepted another digest than most did, in one instance. */
  readonly astray: number;
  /** Regencies in which one instance was certified, beyond the first. */
  readonly depth: number;
  /** Regencies between the first and the last correct replica. */
  readonly split: number;
  /** SYNCs that had to choose between different digests of one instance. */
  readonly choices: number;
}

const CAPS: Danger = { conflict: 3, rivals: 2, astray: 2, depth: 3, split: 2, choices: 2 };
const WEIGHTS: Danger = { conflict: 1, rivals: 4, astray: 4, depth: 1, split: 1, choices: 4 };
const NAMES = Object.keys(CAPS) as (keyof Danger)[];

export function scoreOf(danger: Danger): number {
  return NAMES.reduce((score, name) => score + danger[name] * WEIGHTS[name], 0);
}

export function cellOf(danger: Danger): string {
  return NAMES.map((name) => danger[name]).join(" ");
}

export function inWords(danger: Danger): string {
  return NAMES.map((name) => `${name} ${danger[name]}`).join(", ");
}

export class DangerWatch {
  readonly #view: View;
  readonly #instances = new Map<number, Map<Digest, Support>>();
  readonly #chosen = new Set<string>();
  #conflict = 0;
  #rivals = 0;
  #astray = 0;
  #depth = 0;

  constructor(view: View) {
    this.#view = view;
  }

  sent(from: number, message: Message): void {
    if (message.type === "WRITE") this.#wrote(from, message);
    else if (message.type === "ACCEPT") this.#accepted(from, message);
    else if (message.type === "SYNC") {
      const records = message.stopData.flatMap(({ record }) => (record ? [record] : []));
      const newest = Math.max(0, ...records.map((record) => record.instance));
      const digests = new Set(records.filter(({ instance }) => instance === newest).map(({ digest }) => digest));
      if (digests.size > 1) this.#chosen.add(`${message.regency} ${[...digests].sort().join("")}`);
    }
  }

  /** The danger so far; the split is that of now. */
  at(cluster: CoreCluster): Danger {
    let lowest = Number.POSITIVE_INFINITY;
    let highest = 0;
    for (const { slot, up, core } of cluster.replicas) {
      if (!up || !cluster.trusted(slot)) continue;
      lowest = Math.min(lowest, core.state.regency);
      highest = Math.max(highest, core.state.regency);
    }
    const now: Danger = {
      conflict: this.#conflict,
      rivals: this.#rivals,
      astray: this.#astray,
      depth: this.#depth,
      split: Math.max(0, highest - lowest),
      choices: this.#chosen.size,
    };
    return Object.fromEntries(NAMES.map((name) => [name, Math.min(now[name], CAPS[name])])) as unknown as Danger;
  }

  #supportOf(instance: number, digest: Digest): Support {
    let digests = this.#instances.get(instance);
    if (!digests) {
      digests = new Map();
      this.#instances.set(instance, digests);
    }
    let support = digests.get(digest);
    if (!support) {
      support = { writes: new Map(), accepts: new Set() };
      digests.set(digest, support);
    }
    return support;
  }

  #wrote(from: number, { regency, instance, digest }: { regency: number; instance: number; digest: Digest }): void {
    const { writes } = this.#supportOf(instance, digest);
    const writers = writes.get(regency);
    if (writers?.has(from)) return;
    if (writers) writers.add(from);
    else writes.set(regency, new Set([from]));
    const supports = [...(this.#instances.get(instance)?.values() ?? [])];
    const counts = supports.map((support) => support.writes.get(regency)?.size ?? 0).sort((a, b) => b - a);
    this.#conflict = Math.max(this.#conflict, counts[1] ?? 0);
    const certified = (support: Support): number[] =>
      [...support.writes].filter(([, all]) => all.size >= this.#view.quorum).map(([number]) => number);
    const regencies = supports.map(certified);
    this.#rivals = Math.max(this.#rivals, regencies.filter((list) => list.length > 0).length - 1);
    this.#depth = Math.max(this.#depth, new Set(regencies.flat()).size - 1);
  }

  #accepted(from: number, { instance, digest }: { instance: number; digest: Digest }): void {
    const { accepts } = this.#supportOf(instance, digest);
    if (accepts.has(from)) return;
    accepts.add(from);
    const counts = [...(this.#instances.get(instance)?.values() ?? [])]
      .map((support) => support.accepts.size)
      .sort((a, b) => b - a);
    this.#astray = Math.max(this.#astray, counts[1] ?? 0);
  }
}
