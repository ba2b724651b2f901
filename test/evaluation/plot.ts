/**
 * A plot of one line over time as an SVG document, with events and levels: white ground, thin grid, labels that stay clear of each
 * other and of the line. Pure: the same plot gives the same bytes. Lengths are pixels, places on the axes are in their units.
 */

export interface Axis {
  readonly label: string;
  /** Both axes begin at 0. */
  readonly max: number;
}

export interface Plot {
  readonly title: string;
  readonly subtitle: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly line: readonly { readonly x: number; readonly y: number }[];
  /** What the line is to keep within. */
  readonly band: { readonly from: number; readonly to: number };
  /** A level that holds between two places, and what to write below it, line by line. */
  readonly levels: readonly {
    readonly from: number;
    readonly to: number;
    readonly y: number;
    readonly text: readonly string[];
  }[];
  /** A vertical line with a label above the plot; what it began lasts until `to`. In the order of `from`. */
  readonly events: readonly { readonly from: number; readonly to: number; readonly text: string }[];
  readonly legend: Readonly<Record<"line" | "levels" | "band" | "events", string>>;
}

export const FONT_FAMILY = "Arimo";
const FONTS = `${FONT_FAMILY}, Arial, Helvetica, sans-serif`;
const WIDTH = 1_200;
const HEIGHT = 570;
const LEFT = 84;
const RIGHT = 28;
const BOTTOM = 76;
const HEAD = 64;
const ROW = 20;
const SMALL = 12;
/** The mean width of a character, as a share of the font's size: rather too much than too little. */
const CHARACTER_WIDTH = 0.47;
const TICKS_ABOUT = { x: 13, y: 6 };
const COLOR = {
  ink: "#222222",
  quiet: "#5f6368",
  grid: "#e4e6ea",
  line: "#2b6cb0",
  level: "#dd6b20",
  event: "#9b2c2c",
  band: "#2f855a",
};
const GRID_LINE = `stroke="${COLOR.grid}"`;
const LINE = `stroke="${COLOR.line}" stroke-width="1.6"`;
const LEVEL_LINE = `stroke="${COLOR.level}" stroke-width="3" stroke-opacity="0.9"`;
const EVENT_LINE = `stroke="${COLOR.event}" stroke-width="1.2" stroke-dasharray="4 3"`;

export function plotSvg(plot: Plot): string {
  const flags = placed(plot);
  const top = HEAD + ROW * (1 + Math.max(-1, ...flags.map(({ row }) => row))) + 8;
  const scale: Scale = {
    top,
    bottom: HEIGHT - BOTTOM,
    x: (at) => LEFT + (at / plot.x.max) * (WIDTH - LEFT - RIGHT),
    y: (at) => HEIGHT - BOTTOM - (at / plot.y.max) * (HEIGHT - BOTTOM - top),
  };
  const parts = [
    text(plot.title, { x: LEFT, y: 28, size: 19, weight: "bold" }),
    text(plot.subtitle, { x: LEFT, y: 48, size: 13, color: COLOR.quiet }),
    ...gridOf(plot, scale),
    bandOf(plot, scale),
    ...plot.events.map(({ from, to }) => {
      const width = Math.max(1, scale.x(to) - scale.x(from));
      const place = { x: scale.x(from), y: top, width, height: scale.bottom - top };
      return shape("rect", place, `fill="${COLOR.event}" fill-opacity="0.1"`);
    }),
    lineOf(plot, scale),
    ...plot.levels.flatMap((level) => levelOf(level, scale)),
    ...flags.flatMap((flag) => flagOf(flag, scale)),
    ...legendOf(plot),
  ];
  const size = `width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}"`;
  const ground = `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${FONTS}">\n${[ground, ...parts].join("\n")}\n</svg>\n`;
}

interface Scale {
  readonly top: number;
  readonly bottom: number;
  x(at: number): number;
  y(at: number): number;
}

interface Flag {
  readonly at: number;
  readonly text: string;
  /** The lowest is 0. */
  readonly row: number;
  /** Its text stands left of the line, as there is no room on the right. */
  readonly left: boolean;
}

/** Each label in the lowest row in which it has room. */
function placed({ events, x }: Plot): Flag[] {
  const ends: number[] = [];
  return events.map(({ from, text: label }) => {
    const at = LEFT + (from / x.max) * (WIDTH - LEFT - RIGHT);
    const width = 12 + label.length * SMALL * CHARACTER_WIDTH;
    const left = at + width > WIDTH;
    const begin = left ? at - width : at;
    const free = ends.findIndex((end) => end <= begin);
    const row = free < 0 ? ends.length : free;
    ends[row] = begin + width;
    return { at: from, text: label, row, left };
  });
}

function flagOf({ at, text: label, row, left }: Flag, scale: Scale): string[] {
  const x = scale.x(at);
  const y = scale.top - 8 - ROW * row;
  const line = shape("line", { x1: x, x2: x, y1: y - 11, y2: scale.bottom }, EVENT_LINE);
  const anchor = left ? "end" : "start";
  return [line, text(label, { x: x + (left ? -5 : 5), y, size: SMALL, color: COLOR.event, anchor })];
}

function gridOf({ x, y }: Plot, scale: Scale): string[] {
  const [left, right] = [LEFT, WIDTH - RIGHT];
  const middle = (scale.top + scale.bottom) / 2;
  const across = ticks(y.max, TICKS_ABOUT.y).flatMap((at) => [
    shape("line", { x1: left, x2: right, y1: scale.y(at), y2: scale.y(at) }, GRID_LINE),
    text(numberText(at), { x: left - 8, y: scale.y(at) + 4, size: SMALL, anchor: "end" }),
  ]);
  const down = ticks(x.max, TICKS_ABOUT.x).flatMap((at) => [
    shape("line", { x1: scale.x(at), x2: scale.x(at), y1: scale.top, y2: scale.bottom }, GRID_LINE),
    text(numberText(at), { x: scale.x(at), y: scale.bottom + 18, size: SMALL, anchor: "middle" }),
  ]);
  const frame = `M${left} ${round(scale.top)}V${round(scale.bottom)}H${right}`;
  return [
    ...across,
    ...down,
    `<path d="${frame}" fill="none" stroke="${COLOR.ink}"/>`,
    text(x.label, { x: (left + right) / 2, y: scale.bottom + 40, size: 13, anchor: "middle" }),
    text(y.label, { x: 24, y: middle, size: 13, anchor: "middle", turned: true }),
  ];
}

function bandOf({ band }: Plot, scale: Scale): string {
  const [y, height] = [scale.y(band.to), scale.y(band.from) - scale.y(band.to)];
  return shape("rect", { x: LEFT, y, width: WIDTH - LEFT - RIGHT, height }, `fill="${COLOR.band}" fill-opacity="0.1"`);
}

function lineOf({ line }: Plot, scale: Scale): string {
  const path = line.map(({ x, y }, index) => `${index === 0 ? "M" : "L"}${round(scale.x(x))} ${round(scale.y(y))}`);
  return `<path d="${path.join("")}" fill="none" ${LINE} stroke-linejoin="round"/>`;
}

/** The level itself, and its text at the foot of the plot. */
function levelOf({ from, to, y, text: lines }: Plot["levels"][number], scale: Scale): string[] {
  const [x1, x2, at] = [scale.x(from), scale.x(to), scale.y(y)];
  const foot = scale.bottom - 10 - 16 * (lines.length - 1);
  return [
    shape("line", { x1, x2, y1: at, y2: at }, LEVEL_LINE),
    ...lines.map((one, index) =>
      text(one, {
        x: (x1 + x2) / 2,
        y: foot + 16 * index,
        size: SMALL,
        anchor: "middle",
        weight: index === 0 ? "normal" : "bold",
      }),
    ),
  ];
}

function legendOf({ legend }: Plot): string[] {
  const y = HEIGHT - 12;
  const items = [
    { look: LINE, label: legend.line },
    { look: LEVEL_LINE, label: legend.levels },
    { look: `stroke="${COLOR.band}" stroke-width="10" stroke-opacity="0.15"`, label: legend.band },
    { look: EVENT_LINE, label: legend.events },
  ];
  let x = LEFT;
  return items.flatMap(({ look, label }) => {
    const from = x;
    x += 52 + label.length * SMALL * CHARACTER_WIDTH;
    return [
      shape("line", { x1: from, x2: from + 26, y1: y - 4, y2: y - 4 }, look),
      text(label, { x: from + 32, y, size: SMALL, color: COLOR.quiet }),
    ];
  });
}

/** Round numbers from 0 to at most `max`, about so many. */
export function ticks(max: number, about: number): number[] {
  const raw = max / about;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = magnitude * ([1, 2, 5, 10].find((factor) => factor * magnitude >= raw) ?? 10);
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, index) => index * step);
}

function numberText(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 3 });
}

interface TextStyle {
  readonly x: number;
  readonly y: number;
  readonly size: number;
  readonly color?: string;
  readonly weight?: "normal" | "bold";
  readonly anchor?: "start" | "middle" | "end";
  /** Read from below. */
  readonly turned?: boolean;
}

function text(content: string, style: TextStyle): string {
  const { x, y, size, color = COLOR.ink, weight = "normal", anchor = "start", turned = false } = style;
  const place = `${places({ x, y })}${turned ? ` transform="rotate(-90 ${round(x)} ${round(y)})"` : ""}`;
  const look = `font-size="${size}" font-weight="${weight}" fill="${color}" text-anchor="${anchor}"`;
  return `<text ${place} ${look}>${escaped(content)}</text>`;
}

function shape(name: "line" | "rect", place: Readonly<Record<string, number>>, look: string): string {
  return `<${name} ${places(place)} ${look}/>`;
}

function places(values: Readonly<Record<string, number>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}="${round(value)}"`)
    .join(" ");
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
