/**
 * What an unordered read saves (docs/protocol.md section 3): the same gets of the same keys, unordered and ordered, in turn, on four
 * kv-server processes. Guarantees: the order of the two changes from round to round; figures are medians over the rounds, the
 * ratio that of the rounds.
 *
 *   npm run bench:reads -- --seconds 8 --rounds 3
 */
import { existsSync } from "node:fs";
import { median } from "../../cli/bench/report.ts";
import { type Measured, measuredBy } from "./bench-once.ts";
import { programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";
import { LocalCluster } from "./local-cluster.ts";

const MINUTES_MAX = 15;
const RATIO_MIN = 3;
const KINDS = ["unordered", "ordered"] as const;
type Kind = (typeof KINDS)[number];

async function main(): Promise<void> {
  const usual = { seconds: 8, warmup: 2, rounds: 3, clients: 100, connections: 4, "value-bytes": 100 };
  const options = numbersFrom(usual);
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const findings = new Findings();
  const cluster = await LocalCluster.start({ replicas: 4, requestTimeoutMs: 2_000, server });
  try {
    const size = ["--value-bytes", String(options["value-bytes"])];
    // So that the keys are there.
    await measuredBy(cluster.path, options, ["--mix", "put=1,get=0", ...size]);
    const gets = (kind: Kind): Promise<Measured> =>
      measuredBy(cluster.path, options, [
        "--mix",
        "put=0,get=1",
        ...size,
        ...(kind === "ordered" ? ["--ordered-reads"] : []),
      ]);
    const measured: Record<Kind, Measured[]> = { unordered: [], ordered: [] };
    for (let round = 0; round < options.rounds; round++) {
      for (const kind of round % 2 === 0 ? KINDS : [...KINDS].reverse()) measured[kind].push(await gets(kind));
    }
    judge(findings, measured);
  } finally {
    await cluster.close();
  }
  conclude(findings, options.json);
}

function judge(findings: Findings, measured: Readonly<Record<Kind, readonly Measured[]>>): void {
  for (const kind of KINDS) {
    const of = (figure: (one: Measured) => number): number => median(measured[kind].map(figure));
    const perSecond = Math.round(of(({ opsPerSecond }) => opsPerSecond));
    const latency = `p50 ${of(({ latencyMs }) => latencyMs.p50).toFixed(1)} ms, p99 ${of(({ latencyMs }) => latencyMs.p99).toFixed(1)} ms`;
    const cpu = Math.round(of(({ cpuMicrosPerOp: { client, replicas } }) => client + (replicas ?? Number.NaN)));
    findings.note(`${kind} reads`, `${perSecond}/s, ${latency}, ${cpu} us of CPU each`);
  }
  const ratios = measured.unordered.map(
    ({ opsPerSecond }, round) => opsPerSecond / (measured.ordered[round]?.opsPerSecond ?? Number.NaN),
  );
  const ratio = median(ratios);
  findings.require("unordered / ordered", `>= ${RATIO_MIN}`, ratio.toFixed(2), ratio >= RATIO_MIN);
  const errors = KINDS.flatMap((kind) => measured[kind]).reduce((sum, one) => sum + one.errors, 0);
  findings.require("errors", "none", String(errors), errors === 0);
}

await evaluate("reads", MINUTES_MAX, main);
