/** What an evaluation required and what it saw, line by line, and whether that is enough. */
import { parseArgs } from "node:util";
import { tableText } from "../../cli/text.ts";

export interface Finding {
  readonly what: string;
  readonly required: string;
  readonly seen: string;
  /** Null: nothing is required of this figure. */
  readonly passes: boolean | null;
}

export class Findings {
  readonly #findings: Finding[] = [];

  get all(): readonly Finding[] {
    return this.#findings;
  }

  get passed(): boolean {
    return this.#findings.every(({ passes }) => passes !== false);
  }

  /** A figure nothing is required of. */
  note(what: string, seen: string): void {
    this.#findings.push({ what, required: "", seen, passes: null });
  }

  require(what: string, required: string, seen: string, passes: boolean): void {
    this.#findings.push({ what, required, seen, passes });
  }

  text(): string {
    const rows = this.#findings.map(({ what, required, seen, passes }) => [
      what,
      required,
      seen,
      passes === null ? "" : passes ? "PASS" : "FALLS SHORT",
    ]);
    return tableText(["WHAT", "REQUIRED", "SEEN", ""], rows);
  }
}

/** Numbers from the command line, by the names of their defaults, and `--json`. @throws Error naming what is no number */
export function numbersFrom<T extends Readonly<Record<string, number>>>(defaults: T): T & { readonly json: boolean } {
  const options = Object.fromEntries(Object.keys(defaults).map((name) => [name, { type: "string" as const }]));
  const { values } = parseArgs({ options: { ...options, json: { type: "boolean", default: false } } });
  const numbers = Object.entries(defaults).map(([name, usual]) => {
    const given = (values as Record<string, unknown>)[name];
    const number = given === undefined ? usual : Number(given);
    if (!Number.isFinite(number)) throw new Error(`--${name} must be a number`);
    return [name, number] as const;
  });
  return { ...(Object.fromEntries(numbers) as T), json: values.json === true };
}

/** Ends an evaluation: prints its findings, and makes the exit status tell. */
export function conclude(findings: Findings, json: boolean): void {
  process.stdout.write(json ? `${JSON.stringify(findings.all, null, 2)}\n` : `\n${findings.text()}`);
  if (!findings.passed) process.exitCode = 1;
}

/** Runs an evaluation to its end within the time it may take; a cluster that it leaves behind ends with the process. */
export async function evaluate(name: string, minutesMax: number, run: () => Promise<void>): Promise<void> {
  const end = (why: string): void => {
    process.stderr.write(`${name}: ${why}\n`);
    process.exit(1);
  };
  const timer = setTimeout(() => end(`not finished after ${minutesMax} minutes`), minutesMax * 60_000);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end(`ended by ${signal}`));
  try {
    await run();
  } catch (error) {
    process.stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  } finally {
    clearTimeout(timer);
  }
}
