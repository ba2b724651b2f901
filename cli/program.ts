/**
 * The `kv` program as a function of its arguments and streams. Guarantees: results on stdout only; one line on stderr and the
 * right exit code for everything that goes wrong (exit.ts).
 */
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { benchCommand } from "./commands/bench.ts";
import { clientCommand } from "./commands/client.ts";
import { devCommand } from "./commands/dev.ts";
import { deleteCommand, getCommand } from "./commands/get.ts";
import { clientKeyCommand, idCommand } from "./commands/id.ts";
import { exportCommand, importCommand } from "./commands/import.ts";
import { initCommand } from "./commands/init.ts";
import { casCommand, putCommand } from "./commands/put.ts";
import { rangeCommand } from "./commands/range.ts";
import { recoverCommand } from "./commands/recover.ts";
import { snapshotCommand } from "./commands/snapshot.ts";
import { statusCommand } from "./commands/status.ts";
import { viewCommand } from "./commands/view.ts";
import { EXIT, type ExitCode, endingOf } from "./exit.ts";
import { addGlobalOptions, helpTail } from "./globals.ts";
import type { Io } from "./io.ts";

const EXIT_CODES = `Exit codes:
  0  ok
  1  key not found (get, delete)
  2  bad usage or input
  3  no quorum or timeout
  4  refused by the cluster: a failed condition, a limit, a right that is missing
  70 a defect in kv itself (KV_DEBUG=1 shows where)

Global options may stand before or after the verb.`;

/** All verbs. `end` sets the exit code of a command that has said everything itself. */
export function buildProgram(io: Io, end: (code: ExitCode) => void): Command {
  const program = new Command("kv")
    .description("Quorate: a replicated key-value store that stands lying replicas")
    .version(packageVersion(), "--version", "print the version")
    .helpCommand("help [verb]", "show the help of a verb")
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      // exit.ts prints it, on one line.
      outputError: () => {},
    });
  addGlobalOptions(program);
  const verbs = [
    initCommand(io),
    devCommand(io),
    putCommand(io),
    getCommand(io, end),
    deleteCommand(io, end),
    casCommand(io, end),
    rangeCommand(io),
    importCommand(io),
    exportCommand(io),
    statusCommand(io, end),
    snapshotCommand(io),
    recoverCommand(io),
    clientCommand(io),
    viewCommand(io),
    benchCommand(io),
    idCommand(io),
    clientKeyCommand(io),
  ];
  for (const verb of verbs) {
    for (const command of [verb, ...verb.commands]) command.copyInheritedSettings(program);
    program.addCommand(verb);
  }
  const examples = ["kv dev", "kv put greeting hello", "kv get greeting -o json", "kv status"];
  return program.addHelpText("after", helpTail({ notes: EXIT_CODES, examples }));
}

/** Runs one command line, without the interpreter and the script, and returns its exit code. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  let exitCode: ExitCode = EXIT.OK;
  const program = buildProgram(io, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: "user" });
    return exitCode;
  } catch (error) {
    const ending = endingOf(error, verbIn(program, argv));
    if (ending.line !== "") io.stderr.write(`${ending.line}\n`);
    if (ending.exitCode === EXIT.DEFECT && io.env.KV_DEBUG) io.stderr.write(`${(error as Error).stack}\n`);
    return ending.exitCode;
  }
}

/** The verb of a command line, with the one below it: `client grant`. */
function verbIn({ commands }: Command, argv: readonly string[]): string | null {
  const names = new Set(commands.map((command) => command.name()));
  const at = argv.findIndex((word) => names.has(word));
  const verb = commands.find((command) => command.name() === argv[at]);
  if (!verb) return null;
  const below = verbIn(verb, argv.slice(at + 1));
  return below === null ? verb.name() : `${verb.name()} ${below}`;
}

/** From the package's own package.json, one or two directories up: sources or compiled. */
function packageVersion(): string {
  for (const up of ["../package.json", "../../package.json"]) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(up, import.meta.url), "utf8")) as Record<
        string,
        unknown
      >;
      if (name === "quorate") return String(version);
    } catch {
      // Not here: try the next one.
    }
  }
  return "unknown";
}
