/** `kv client`: who may be a client and what it may do, as administrators say and the cluster remembers. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Administration, ClientList, ClientRights } from "../../client/administration.ts";
import { fromHex, hex, textOf, utf8 } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { clientIdOf, PUBLIC_KEYS_BYTES, publicKeysFrom } from "../../protocol/identity.ts";
import { usageError } from "../exit.ts";
import { chooseCluster, DEFAULT_TIMEOUT_MS, type Globals, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { viewsOf } from "../session.ts";
import { printable, tableText } from "../text.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const UNIT_MS = { m: 60_000, h: 3_600_000, d: DAY_MS } as const;
const EXPIRES_MS_MAX = 3_650 * DAY_MS;

interface AdminOptions {
  readonly adminKey?: readonly string[];
}

interface GrantCommandOptions extends AdminOptions {
  readonly id?: string;
  readonly keys?: string;
  readonly keyFile?: string;
  readonly read?: readonly Uint8Array[];
  readonly readHex?: readonly Uint8Array[];
  readonly write?: readonly Uint8Array[];
  readonly writeHex?: readonly Uint8Array[];
  readonly expires?: number;
}

export function clientCommand(io: Io): Command {
  return new Command("client")
    .description("grant, revoke and list the rights of clients, with an administrator's key")
    .addHelpText("after", helpTail({ examples: ["kv client list", "kv client revoke ID"] }))
    .addCommand(grantCommand(io))
    .addCommand(revokeCommand(io))
    .addCommand(listCommand(io));
}

function withAdminKey(command: Command): Command {
  return command.option(
    "--admin-key <file...>",
    "administrators' key files (default: admin.key beside the cluster file)",
  );
}

function prefixes(flags: string, text: string, parse: (prefix: string) => Uint8Array): Option {
  return new Option(flags, text).argParser((prefix, earlier: readonly Uint8Array[] | undefined) => [
    ...(earlier ?? []),
    parse(prefix),
  ]);
}

function grantCommand(io: Io): Command {
  return withAdminKey(new Command("grant").description("give a client rights, instead of those it had"))
    .option("--id <id>", "the client's id, to be compared with its keys")
    .option("--keys <hex>", "the client's public keys, as kv id prints them")
    .option("--key-file <file>", "the same from a file: what kv id -o json wrote, or 128 hexadecimal digits")
    .addOption(prefixes("--read <prefix...>", "it may read keys that begin with this; '' for every key", utf8))
    .addOption(prefixes("--write <prefix...>", "it may write keys that begin with this; '' for every key", utf8))
    .addOption(prefixes("--read-hex <prefix...>", "like --read, in hexadecimal digits", parseHex))
    .addOption(prefixes("--write-hex <prefix...>", "like --write, in hexadecimal digits", parseHex))
    .addOption(
      new Option(
        "--expires <duration>",
        "for so many minutes, hours or days from now: 90m, 12h, 30d (default: for ever); seconds are not taken",
      ).argParser(parseExpiry),
    )
    .addHelpText(
      "after",
      helpTail({
        notes:
          "A cluster made with kv init --clients listed takes only the clients it lists and those granted. Ranges need the right to\n" +
          "read every key between their ends. The right to write a key tells its revisions, not its value.",
        json: '{"id","keys","read":[{"text":"a/","hex":"612f"}],"write":[],"expires":"2026-01-31T00:00:00.000Z" or null}',
        examples: [
          "kv client grant --key-file alice.pub --read shared/ --write alice/ --read alice/",
          "kv client grant --keys HEX --read '' --expires 30d",
        ],
      }),
    )
    .action(async (options: GrantCommandOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      const keys = keysOf(options);
      const id = hex(clientIdOf(nodeCrypto, publicKeysFrom(keys)));
      if (options.id !== undefined && options.id !== id) {
        throw usageError(`--id is not the id of these keys, which is ${id}; check whose keys they are`);
      }
      const read = [...(options.read ?? []), ...(options.readHex ?? [])];
      const write = [...(options.write ?? []), ...(options.writeHex ?? [])];
      if (read.length + write.length === 0) throw usageError("name at least one prefix with --read or --write");
      const expiresMs = options.expires === undefined ? undefined : Date.now() + options.expires;
      await administered(globals, io, options, (administration) =>
        administration.grant({ keys, read, write, expiresMs }),
      );
      if (format === "simple") await writeOut(io, `granted ${id}\n`);
      else {
        const shown = { id, keys: hex(keys), read: read.map(prefixJson), write: write.map(prefixJson) };
        await writeOut(io, `${JSON.stringify({ ...shown, expires: timeText(expiresMs ?? null) })}\n`);
      }
    });
}

function revokeCommand(io: Io): Command {
  return withAdminKey(new Command("revoke").description("take all rights from a client"))
    .argument("<id>", "the client's id: 64 hexadecimal digits")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Also from one that the cluster file lists. What it sent before may still be executed before the revocation.",
        json: '{"id","revoked":true}',
        examples: ["kv client revoke ID"],
      }),
    )
    .action(async (id: string, options: AdminOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      await administered(globals, io, options, (administration) => administration.revoke(id));
      await writeOut(io, format === "json" ? `${JSON.stringify({ id, revoked: true })}\n` : `revoked ${id}\n`);
    });
}

function listCommand(io: Io): Command {
  return withAdminKey(new Command("list").description("show who may be a client, and what it may do"))
    .addHelpText(
      "after",
      helpTail({
        json:
          '{"open":false,"clients":[{"id","state":"founding"|"granted"|"expired"|"revoked","keys","read","write","expires"}]}; ' +
          "prefixes as kv client grant prints them",
        examples: ["kv client list", "kv client list -o json"],
      }),
    )
    .action(async (options: AdminOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "table", "json"]);
      const list = await administered(globals, io, options, (administration) => administration.list());
      if (format === "json") await writeOut(io, `${JSON.stringify(listJson(list))}\n`);
      else if (list.open) await writeOut(io, "this cluster is open: everybody may do everything\n");
      else await writeOut(io, listTable(list));
    });
}

/** Runs `use` with an administrator's connection. */
async function administered<T>(
  globals: Globals,
  io: Io,
  { adminKey }: AdminOptions,
  use: (administration: Administration) => Promise<T>,
): Promise<T> {
  const cluster = chooseCluster(globals, io);
  const administrators = adminKey ?? [join(dirname(cluster.path), "admin.key")];
  const { connectAdministration } = await import("../../client/index.ts");
  const timeoutMs = globals.timeout ?? DEFAULT_TIMEOUT_MS;
  const administration = await connectAdministration({
    cluster: cluster.file,
    administrators,
    timeoutMs,
    viewFile: viewsOf(cluster),
  });
  try {
    return await use(administration);
  } finally {
    await administration.close();
  }
}

/** @throws CommandExit (usage) */
function keysOf({ keys, keyFile }: GrantCommandOptions): Uint8Array {
  if ((keys === undefined) === (keyFile === undefined))
    throw usageError("give the client's public keys: --keys or --key-file");
  const text = keys ?? keysText(keyFile as string);
  if (!/^[0-9a-f]+$/.test(text) || text.length !== 2 * PUBLIC_KEYS_BYTES) {
    const where = keys === undefined ? `${keyFile} holds no` : "--keys are no";
    throw usageError(`${where} public keys: ${2 * PUBLIC_KEYS_BYTES} hexadecimal digits, as kv id prints them`);
  }
  return fromHex(text);
}

/** @throws CommandExit (usage) */
function keysText(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8").trim();
  } catch (error) {
    throw usageError(`--key-file ${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown error"})`);
  }
  if (!text.startsWith("{")) return text;
  try {
    const { keys } = JSON.parse(text) as { keys?: unknown };
    return typeof keys === "string" ? keys : "";
  } catch {
    return "";
  }
}

function parseHex(text: string): Uint8Array {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text))
    throw new InvalidArgumentError("Write pairs of hexadecimal digits.");
  return fromHex(text);
}

/** Milliseconds, at least a minute. */
function parseExpiry(text: string): number {
  const match = /^(\d{1,7})(m|h|d)$/.exec(text);
  if (!match) throw new InvalidArgumentError("Write a number of minutes, hours or days: 90m, 12h, 30d.");
  const [, amount, unit] = match as unknown as [string, string, keyof typeof UNIT_MS];
  const durationMs = Number(amount) * UNIT_MS[unit];
  if (durationMs < UNIT_MS.m || durationMs > EXPIRES_MS_MAX)
    throw new InvalidArgumentError("It must be from 1m to 3650d.");
  return durationMs;
}

function prefixJson(prefix: Uint8Array): { text?: string; hex: string } {
  const text = textOf(prefix);
  return { ...(text === null ? {} : { text }), hex: hex(prefix) };
}

function timeText(ms: number | null): string | null {
  if (ms === null) return null;
  const date = new Date(ms);
  // Beyond what calendars know.
  return Number.isNaN(date.getTime()) ? `${ms}` : date.toISOString();
}

function listJson({ open, clients }: ClientList): object {
  return {
    open,
    clients: clients.map(({ id, state, keys, read, write, expiresMs }) => ({
      id,
      state,
      keys: keys && hex(keys),
      read: read.map(prefixJson),
      write: write.map(prefixJson),
      expires: timeText(expiresMs),
    })),
  };
}

function listTable({ clients }: ClientList): string {
  const shown = (list: ClientRights["read"]): string =>
    list.length === 0 ? "-" : list.map((prefix) => (prefix.length === 0 ? "*" : printable(prefix))).join(" ");
  const rows = clients.map(({ id, state, read, write, expiresMs }) => [
    id,
    state,
    shown(read),
    shown(write),
    timeText(expiresMs) ?? "never",
  ]);
  return tableText(["ID", "STATE", "READ", "WRITE", "EXPIRES"], rows);
}
