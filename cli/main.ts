#!/usr/bin/env node
/** The `kv` binary: the process around `run`. A reader of stdout that goes away ends it quietly. */
import { EXIT } from "./exit.ts";
import { run } from "./program.ts";

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.OK);
  process.stderr.write(`kv: cannot write to stdout (${error.code ?? error.message})\n`);
  process.exit(EXIT.USAGE);
});
process.stderr.on("error", () => {});

const { stdin, stdout, stderr, env } = process;
const exitCode = await run(process.argv.slice(2), { stdin, stdout, stderr, env });
stdout.write("", () => process.exit(exitCode));
