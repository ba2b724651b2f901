/**
 * The figures of a load during which events befall the cluster: operations per second in buckets of time, the level of each
 * quiet stretch between two events, and how long nothing was answered around an event. Pure. Times are milliseconds since the
 * load began. The text form (CSV) holds all that the plot shows.
 */

/** Something that was done to the cluster, from its first step until the cluster was as intended. */
export interface ClusterEvent {
  readonly what: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** A time in which nothing was done to the cluster, and which is far enough from every event. */
export interface Stretch {
  /** How the cluster was. */
  readonly what: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export interface StretchLevel extends Stretch {
  /** The median of its buckets, in operations per second. */
  readonly perSecond: number;
  /** As a share of the level of the first stretch. */
  readonly ratio: number;
  /** The lowest of its buckets. */
  readonly lowest: number;
}

export interface EventTimeline {
  /** What load it was, for people. */
  readonly load: string;
  readonly bucketMs: number;
  /** Operations per second, bucket after bucket from the beginning of the load on. */
  readonly buckets: readonly number[];
  readonly events: readonly ClusterEvent[];
  readonly levels: readonly StretchLevel[];
}

/** Operations per second in each whole bucket until `toMs`. */
export function bucketsOf(answeredMs: readonly number[], span: { bucketMs: number; toMs: number }): number[] {
  const { bucketMs, toMs } = span;
  const counts = new Array<number>(Math.floor(toMs / bucketMs)).fill(0);
  for (const atMs of answeredMs) {
    const index = Math.floor(atMs / bucketMs);
    const count = counts[index];
    if (count !== undefined) counts[index] = count + 1;
  }
  return counts.map((count) => (count * 1_000) / bucketMs);
}

/** How far the level of a stretch may be from that of the first, as a share of it. */
export const DEVIATION_MAX = 0.15;

/** The level of each stretch, by the buckets that lie within it as a whole. */
export function levelsOf(
  stretches: readonly Stretch[],
  { buckets, bucketMs }: Pick<EventTimeline, "buckets" | "bucketMs">,
): StretchLevel[] {
  const within = stretches.map(({ fromMs, toMs }) =>
    buckets.slice(Math.ceil(fromMs / bucketMs), Math.floor(toMs / bucketMs)),
  );
  const base = medianOf(within[0] ?? []);
  return stretches.map((stretch, index) => {
    const perSecond = medianOf(within[index] ?? []);
    return { ...stretch, perSecond, ratio: perSecond / base, lowest: Math.min(...(within[index] ?? [])) };
  });
}

/** The mean of the middle two of an even number; not a number of none. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** The longest time without an answer between two moments, its beginning and end cut off there. Answers in the order of time. */
export function longestGapMs(
  answeredMs: readonly number[],
  { fromMs, toMs }: { fromMs: number; toMs: number },
): number {
  let longest = 0;
  let lastMs = fromMs;
  for (const atMs of answeredMs) {
    if (atMs < fromMs) continue;
    if (atMs >= toMs) break;
    longest = Math.max(longest, atMs - lastMs);
    lastMs = atMs;
  }
  return Math.max(longest, toMs - lastMs);
}

const HEADER = "kind,from_s,to_s,ops_per_s,ratio,lowest,what";

/** One line per bucket, event and stretch; seconds since the load began. */
export function timelineCsv({ load, bucketMs, buckets, events, levels }: EventTimeline): string {
  const row = (kind: string, { fromMs, toMs }: { fromMs: number; toMs: number }, rest: readonly string[]): string =>
    [kind, (fromMs / 1_000).toFixed(3), (toMs / 1_000).toFixed(3), ...rest].join(",");
  const lines = [
    row("load", { fromMs: 0, toMs: buckets.length * bucketMs }, ["", "", "", load]),
    ...buckets.map((perSecond, index) =>
      row("bucket", { fromMs: index * bucketMs, toMs: (index + 1) * bucketMs }, [perSecond.toFixed(0), "", "", ""]),
    ),
    ...events.map((event) => row("event", event, ["", "", "", event.what])),
    ...levels.map((level) => {
      const { perSecond, ratio, lowest, what } = level;
      return row("stretch", level, [perSecond.toFixed(0), ratio.toFixed(3), lowest.toFixed(0), what]);
    }),
  ];
  return `${[HEADER, ...lines].join("\n")}\n`;
}

/** What `timelineCsv` wrote. @throws Error naming a line that it did not write */
export function parseTimelineCsv(text: string): EventTimeline {
  const [header, ...lines] = text.trimEnd().split("\n");
  if (header !== HEADER) throw new Error(`the first line is not ${HEADER}`);
  const buckets: number[] = [];
  const events: ClusterEvent[] = [];
  const levels: StretchLevel[] = [];
  let bucketMs = 0;
  let load = "";
  for (const line of lines) {
    const [kind, from, to, perSecond, ratio, lowest, ...what] = line.split(",");
    const times = { fromMs: Math.round(Number(from) * 1_000), toMs: Math.round(Number(to) * 1_000) };
    const named = { what: what.join(","), ...times };
    if (kind === "bucket") {
      buckets.push(Number(perSecond));
      bucketMs = times.toMs - times.fromMs;
    } else if (kind === "load") load = named.what;
    else if (kind === "event") events.push(named);
    else if (kind === "stretch")
      levels.push({ ...named, perSecond: Number(perSecond), ratio: Number(ratio), lowest: Number(lowest) });
    else throw new Error(`a line of no kind that is known: ${line}`);
  }
  return { load, bucketMs, buckets, events, levels };
}
