/** `kv id` and `kv client-key`: who a key file is, and new client keys. */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { Command } from "commander";
import { hex } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { QuorateError } from "../../protocol/errors.ts";
import {
  clientIdOf,
  type Identity,
  keyFileText,
  newIdentity,
  parseKeyFile,
  publicKeysBytes,
} from "../../protocol/identity.ts";
import { usageError } from "../exit.ts";
import { chooseCluster, chooseIdentity, type Format, globalsOf, helpTail } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";

const KEY_MODE = 0o600;

/** What others may know of a key file: the id that the cluster names it by, and the keys an administrator grants rights to. */
function idText(format: Format, file: string, identity: Identity): string {
  const id = hex(clientIdOf(nodeCrypto, identity));
  const keys = hex(publicKeysBytes(identity));
  if (format === "json") return `${JSON.stringify({ file, id, keys })}\n`;
  return format === "raw" ? id : `id   ${id}\nkeys ${keys}\n`;
}

export function idCommand(io: Io): Command {
  return new Command("id")
    .description("print the client id and the public keys of a key file, to hand to an administrator")
    .argument("[file]", "client key file (default: the one --identity names, else client.key beside the cluster file)")
    .addHelpText(
      "after",
      helpTail({
        notes: "-o raw prints the id alone.",
        json: '{"file","id","keys"}; kv client grant --key-file takes it',
        examples: ["kv id", "kv id alice.key -o json > alice.pub"],
      }),
    )
    .action(async (file: string | undefined, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const path = file ?? globals.identity ?? chooseIdentity(globals, chooseCluster(globals, io));
      await writeOut(io, idText(globals.output, path, readClientKey(path)));
    });
}

export function clientKeyCommand(io: Io): Command {
  return new Command("client-key")
    .description("create a new client key file (mode 0600) and print its client id and public keys")
    .argument("<file>", "file to create; it must not exist")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Keep the file where nobody else can read it. Where the cluster does not take everybody, hand id and keys to an\n" +
          "administrator: kv client grant.",
        json: '{"file","id","keys"}',
        examples: ["kv client-key alice.key", "kv get greeting --identity alice.key"],
      }),
    )
    .action(async (file: string, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const identity = newIdentity(nodeCrypto);
      writeNewKey(file, keyFileText("client", identity));
      await writeOut(io, idText(globals.output, file, identity));
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
