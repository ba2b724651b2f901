/** `kv id` and `kv client-key`: who a key file is, and new client keys. */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { Command } from "commander";
import { hex } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { QuorateError } from "../../protocol/errors.ts";
import { clientIdOf, type Identity, keyFileText, newIdentity, parseKeyFile } from "../../protocol/identity.ts";
import { usageError } from "../exit.ts";
import { chooseCluster, chooseIdentity, type Format, globalsOf, helpTail } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";

const KEY_MODE = 0o600;

function idText(format: Format, file: string, id: string): string {
  if (format === "json") return `${JSON.stringify({ file, id })}\n`;
  return format === "raw" ? id : `${id}\n`;
}

export function idCommand(io: Io): Command {
  return new Command("id")
    .description("print the client id of a key file, as the cluster file lists it")
    .argument("[file]", "client key file (default: the one --identity names, else client.key beside the cluster file)")
    .addHelpText("after", helpTail({ json: '{"file","id"}', examples: ["kv id", "kv id alice.key"] }))
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const path = file ?? globals.identity ?? chooseIdentity(globals, chooseCluster(globals, io));
      const id = hex(clientIdOf(nodeCrypto, readClientKey(path)));
      await writeOut(io, idText(globals.output, path, id));
    });
}

export function clientKeyCommand(io: Io): Command {
  return new Command("client-key")
    .description("create a new client key file (mode 0600) and print its client id")
    .argument("<file>", "file to create; it must not exist")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Keep the file where nobody else can read it. Where the cluster file lists its clients, the id must be listed\n" +
          "before the cluster is first started.",
        json: '{"file","id"}',
        examples: ["kv client-key alice.key", "kv get greeting --identity alice.key"],
      }),
    )
    .action(async (file: string, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const identity = newIdentity(nodeCrypto);
      writeNewKey(file, keyFileText("client", identity));
      await writeOut(io, idText(globals.output, file, hex(clientIdOf(nodeCrypto, identity))));
    });
}

/** @throws QuorateError KEY_FILE_UNREADABLE, KEY_FILE_INVALID */
function readClientKey(file: string): Identity {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "does not exist; create one with: kv client-key FILE" : `cannot be read (${code})`;
    throw new QuorateError("KEY_FILE_UNREADABLE", `key file ${file} ${why}`, { file }, cause);
  }
  const { role, identity } = parseKeyFile(text, file);
  if (role !== "client") {
    throw new QuorateError("KEY_FILE_INVALID", `${file} holds the keys of role ${role}; name a client key file`, {
      file,
    });
  }
  return identity;
}

/** @throws CommandExit (usage) when the file exists or cannot be written. */
function writeNewKey(file: string, text: string): void {
  try {
    writeFileSync(file, text, { mode: KEY_MODE, flag: "wx" });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    if (code === "EEXIST") throw usageError(`${file} exists already; key files are never overwritten, name another`);
    const directory = dirname(resolve(file));
    throw usageError(`cannot write ${file} (${code}); name a file in a directory you can write, not ${directory}`);
  }
}
