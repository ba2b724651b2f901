/** The plot: where things stand on the axes, labels that do not meet, text that is really drawn. */
import { describe, expect, test } from "vitest";
import { type Plot, plotSvg, ticks } from "../../evaluation/plot.ts";
import { pngOf } from "../../evaluation/plot-png.ts";

const PLOT: Plot = {
  title: "a < b & c",
  subtitle: "of a test",
  x: { label: "time (s)", max: 100 },
  y: { label: "rate (1/s)", max: 50 },
  line: [
    { x: 0, y: 0 },
    { x: 100, y: 50 },
  ],
  band: { from: 20, to: 30 },
  levels: [{ from: 10, to: 20, y: 25, text: ["calm", "1.00"] }],
  events: [
    { from: 30, to: 40, text: "the first of two events" },
    { from: 31, to: 32, text: "the second" },
    { from: 99, to: 100, text: "one at the end" },
  ],
  legend: { line: "rate", levels: "level", band: "band", events: "event" },
};

/** Where a text stands, and what else its element says. */
function textIn(svg: string, content: string): { x: number; y: number; tag: string } {
  const [tag = "", x, y] = new RegExp(`<text x="([\\d.]+)" y="([\\d.]+)"[^>]*>${content}</text>`).exec(svg) ?? [];
  return { x: Number(x), y: Number(y), tag };
}

describe("the SVG document", () => {
  const svg = plotSvg(PLOT);

  test("escapes what is text, and says axes, legend and levels", () => {
    expect(svg).toContain(">a &lt; b &amp; c</text>");
    for (const text of ["time (s)", "rate (1/s)", "calm", "1.00", "level", "band"])
      expect(svg).toContain(`>${text}</text>`);
  });

  test("the line goes from the corner of the axes to the other one", () => {
    const [, x1, y1, x2, y2] = /<path d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"/.exec(svg)?.map(Number) ?? [];
    const [, left, top, bottom, right] = /<path d="M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)"/.exec(svg)?.map(Number) ?? [];
    expect([x1, y1, x2, y2]).toEqual([left, bottom, right, top]);
  });

  test("labels of events that are close to each other stand in rows, one without room on the right on the left", () => {
    const [first, second, last] = PLOT.events.map(({ text }) => textIn(svg, text));
    expect(second?.y).toBeLessThan(first?.y as number);
    expect(second?.x).toBeGreaterThan(first?.x as number);
    expect(last?.y).toBe(first?.y);
    expect(last?.tag).toContain('text-anchor="end"');
  });
});

test("ticks are round numbers within the axis", () => {
  expect(ticks(112, 13)).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]);
  expect(ticks(2_300, 6)).toEqual([0, 500, 1_000, 1_500, 2_000]);
  expect(ticks(1, 6)).toHaveLength(6);
});

test("the image is a PNG with text in it, whatever fonts the machine has", () => {
  const svg = plotSvg(PLOT);
  const image = pngOf(svg);
  expect([...image.subarray(0, 4)]).toEqual([0x89, 0x50, 0x4e, 0x47]);
  for (const content of ["time (s)", "1.00"]) {
    const without = pngOf(svg.replace(`>${content}</text>`, "></text>"));
    expect(Buffer.compare(image, without), content).not.toBe(0);
  }
});
