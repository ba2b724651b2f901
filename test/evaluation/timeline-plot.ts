/**
 * The plot of a timeline. `npm run bench:timeline` writes it with its data; to draw it again from those:
 *
 *   npx tsx test/evaluation/timeline-plot.ts docs/evaluation
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Plot, plotSvg } from "./plot.ts";
import { pngOf } from "./plot-png.ts";
import { DEVIATION_MAX, type EventTimeline, parseTimelineCsv, timelineCsv } from "./timeline-figures.ts";

const ROOM_ABOVE = 1.15;

/** Writes timeline.csv, and timeline.svg and timeline.png from what is in it, into a folder. */
export function writeTimeline(folder: string, timeline: EventTimeline): void {
  const csv = timelineCsv(timeline);
  writeFileSync(join(folder, "timeline.csv"), csv);
  const svg = plotSvg(plotOf(parseTimelineCsv(csv)));
  writeFileSync(join(folder, "timeline.svg"), svg);
  writeFileSync(join(folder, "timeline.png"), pngOf(svg));
}

export function plotOf({ load, bucketMs, buckets, events, levels }: EventTimeline): Plot {
  const before = levels[0]?.perSecond ?? 0;
  const seconds = (ms: number): number => ms / 1_000;
  const endMs = Math.max(buckets.length * bucketMs, levels.at(-1)?.toMs ?? 0);
  return {
    title: "A cluster under load grows, loses a follower and its leader, and shrinks",
    subtitle: `4 replicas, then 5, then 4 again; f = 1; ${load}`,
    x: { label: "time (s)", max: seconds(endMs) },
    y: { label: "throughput (operations/s)", max: Math.max(1, ...buckets) * ROOM_ABOVE },
    // A bucket stands at its middle.
    line: buckets.map((y, index) => ({ x: seconds((index + 0.5) * bucketMs), y })),
    band: { from: before * (1 - DEVIATION_MAX), to: before * (1 + DEVIATION_MAX) },
    levels: levels.map(({ what, fromMs, toMs, perSecond, ratio }) => ({
      from: seconds(fromMs),
      to: seconds(toMs),
      y: perSecond,
      text: [what, ratio.toFixed(2)],
    })),
    events: events.map(({ what, fromMs, toMs }) => ({ from: seconds(fromMs), to: seconds(toMs), text: what })),
    legend: {
      line: `answered, in buckets of ${bucketMs} ms`,
      levels: "level (median) of a quiet stretch; below it as a share of the first",
      band: `the first level ± ${DEVIATION_MAX * 100} %`,
      events: "event; shaded until it is over",
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const folder = process.argv[2] ?? join("docs", "evaluation");
  writeTimeline(folder, parseTimelineCsv(readFileSync(join(folder, "timeline.csv"), "utf8")));
}
