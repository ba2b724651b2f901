#!/usr/bin/env -S MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=262144 MALLOC_TRIM_THRESHOLD_=1048576 node
/**
 * `kv-server`: one replica in the foreground. JSON logs on stderr (pretty on a terminal), one ready line on stdout.
 * Exit codes: 0 after SIGTERM or SIGINT, or when it was removed from the cluster, 2 for anything the operator must mend before a start can succeed, 1 when the
 * replica can no longer keep its promises (a failed sync, a broken invariant).
 */
import { Command, CommanderError } from "commander";
import { QuorateError } from "../protocol/errors.ts";
import { loadServerConfig } from "./config.ts";
import { serve } from "./library.ts";
import { VERSION } from "./server.ts";
import { kvService } from "./service/kv-service.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

function complain(error: unknown): number {
  if (error instanceof QuorateError) {
    process.stderr.write(`kv-server: ${error.message} [${error.code}]\n`);
    return EXIT_USAGE;
  }
  process.stderr.write(`kv-server: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return EXIT_FAILED;
}

async function run(options: { config: string; logLevel?: string }): Promise<number> {
  const flags = options.logLevel === undefined ? {} : { logLevel: options.logLevel };
  return await serve({ config: loadServerConfig(options.config, { flags }), service: kvService });
}

function program(done: (code: number) => void): Command {
  const command = new Command("kv-server")
    .description("Runs one replica of a Quorate cluster in the foreground.")
    .version(VERSION)
    .exitOverride()
    .requiredOption("--config <file>", "the replica's node.yaml")
    .option("--log-level <level>", "trace, debug, info, warn, error, fatal or silent")
    .addHelpText(
      "after",
      `
Also:
  kv-server config validate --config <file>  reads node.yaml and what it names, says what is wrong, and changes nothing

Environment:
  QUORATE_LOG_LEVEL            like --log-level, which wins; wins over logLevel in node.yaml
  QUORATE_DATA_DIR             the data directory; wins over dataDir in node.yaml
  QUORATE_STOP_ON_STDIN_END=1  stop when stdin ends, as on SIGTERM

Examples:
  kv init --replicas 4 --dir .kv
  kv-server --config .kv/replica-0/node.yaml
  kv-server config validate --config .kv/replica-0/node.yaml`,
    )
    .action(async (options: { config: string; logLevel?: string }) => done(await run(options)));
  return command;
}

/** `config validate` says what a start would say about the files, and changes nothing. */
function configProgram(): Command {
  const validate = new Command("validate")
    .description("Says what a start would say about the files, and changes nothing.")
    .exitOverride()
    .requiredOption("--config <file>", "the replica's node.yaml")
    .action(({ config: file }: { config: string }) => {
      const config = loadServerConfig(file);
      const { view } = config.cluster;
      process.stdout.write(
        `${config.file} is valid: replica ${config.replica} of ${view.n}, f=${view.f}, data in ${config.dataDir}\n`,
      );
    });
  return new Command("kv-server config").description("Looks at a configuration.").exitOverride().addCommand(validate);
}

async function main(argv: readonly string[]): Promise<number> {
  try {
    if (argv[0] === "config") {
      configProgram().parse(argv.slice(1), { from: "user" });
      return 0;
    }
    let code = 0;
    await program((result) => {
      code = result;
    }).parseAsync([...argv], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    return complain(error);
  }
}

process.exit(await main(process.argv.slice(2)));
