/** `kv snapshot save|verify`: one file that holds the state of a cluster and proves itself (docs/snapshot-format.md). */
import { statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { readIdentityFile } from "../../client/identity-file.ts";
import { hex } from "../../protocol/bytes.ts";
import { clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import type { SnapshotSummary } from "../../server/snapshot/verify.ts";
import { formatBytes } from "../byte-size.ts";
import { usageError } from "../exit.ts";
import {
  chooseCluster,
  chooseIdentity,
  DEFAULT_TIMEOUT_MS,
  globalsOf,
  helpTail,
  namedCluster,
  requireFormat,
} from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { lineOn } from "../progress.ts";
import { followedChain } from "../session.ts";
import type { SavePhase } from "../snapshot/save.ts";

const SAVE_WAIT_MS = 120_000;

const JSON_FORM =
  '{"file","instance":1200,"revision":"40","entries":1000,"bytes":12345,"root","clusterId","sha256","timestampMs",' +
  '"checkpoint":1100,"signedBy":[{"replica":0,"instance":1100}],"contradictedBy":[]}';

export function snapshotCommand(io: Io): Command {
  return new Command("snapshot")
    .description("save the state of the cluster into a file, or verify such a file")
    .addHelpText(
      "after",
      helpTail({
        examples: ["kv snapshot save backup.qsnap", "kv snapshot verify backup.qsnap --cluster cluster.json"],
      }),
    )
    .addCommand(saveCommand(io))
    .addCommand(verifyCommand(io));
}

function saveCommand(io: Io): Command {
  return new Command("save")
    .description("save a snapshot of the running cluster; service goes on")
    .argument("<file>", "file to write; one of that name is replaced once the new one is verified")
    .option("--stale", "also take a checkpoint from before this command, which is there at once")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "The state at one instance, as f+1 replicas signed it, with what proves that; every write acknowledged before the\n" +
          "command is in it. Needs a client key that may read and the replicas' admin ports. --timeout is how long to wait for replicas to have checkpoints, 2m unless given.",
        json: JSON_FORM,
        examples: ["kv snapshot save backup.qsnap", "kv snapshot save backup.qsnap -o json --timeout 10m"],
      }),
    )
    .action(async (path: string, options: { stale?: true }, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      requireFolder(path);
      const choice = chooseCluster(globals, io);
      const identity = await readIdentityFile(chooseIdentity(globals, choice));
      const cluster = clusterOf(nodeCrypto, choice.file);
      const chain = await followedChain(globals, io, choice);
      const { AdminClient } = await import("../snapshot/admin-client.ts");
      const { saveSnapshot } = await import("../snapshot/save.ts");
      const sign = nodeCrypto.signer(identity.signSeed);
      const client = new AdminClient({ cluster: cluster.id, keys: identity, sign, timeoutMs: 2 * DEFAULT_TIMEOUT_MS });
      const line = lineOn(io);
      try {
        const summary = await saveSnapshot({
          crypto: nodeCrypto,
          clusterFile: choice.file,
          chain,
          client,
          path,
          fresh: options.stale !== true,
          waitMs: globals.timeout ?? SAVE_WAIT_MS,
          onPhase: (phase) => line.draw(() => phaseText(phase)),
          onTrouble(text) {
            line.erase();
            io.stderr.write(`kv: ${text}\n`);
          },
        });
        line.erase();
        await writeOut(io, format === "json" ? snapshotJson(path, summary) : savedText(path, summary));
      } finally {
        line.erase();
      }
    });
}

/** A file can get this name; a whole store is not fetched to find out that it cannot. @throws CommandExit */
function requireFolder(path: string): void {
  // As it is written at first: `missing/` must not be taken for a file.
  const folder = dirname(resolve(`${path}.tmp`));
  if (!isDirectory(folder)) throw usageError(`there is no folder ${folder}; make it first, or name a file elsewhere`);
  if (!isDirectory(path)) return;
  throw usageError(`${path} is a directory; name a file in it, like ${join(path, "backup.qsnap")}`);
}

function isDirectory(path: string): boolean {
  return statSync(resolve(path), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function verifyCommand(io: Io): Command {
  return new Command("verify")
    .description("check everything in a snapshot file")
    .argument("<file>", "file that kv snapshot save wrote")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Recomputes the whole state: chunks, certified log, the roots that f+1 replicas signed. Exit code 2 and what is wrong\n" +
          "when it is not valid. With --cluster (or $KV_CLUSTER) it must be a snapshot of that cluster; without, the cluster\n" +
          "file inside the snapshot is believed: compare the cluster id that is printed. Needs room beside the file.",
        json: JSON_FORM,
        examples: ["kv snapshot verify backup.qsnap --cluster cluster.json", "kv snapshot verify backup.qsnap -o json"],
      }),
    )
    .action(async (path: string, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      const choice = namedCluster(globals, io);
      const summary = await verified(io, path, choice?.file ?? null);
      await writeOut(io, format === "json" ? snapshotJson(path, summary) : verifiedText(path, summary, choice?.path));
    });
}

/** Verifies with progress on stderr. @throws QuorateError SNAPSHOT_INVALID */
export async function verified(
  io: Io,
  file: string,
  clusterFile: ReturnType<typeof chooseCluster>["file"] | null,
): Promise<SnapshotSummary> {
  const { verifySnapshot } = await import("../../server/snapshot/verify.ts");
  const line = lineOn(io);
  try {
    const { summary, state } = await verifySnapshot({
      file,
      crypto: nodeCrypto,
      clusterFile,
      scratchParent: dirname(resolve(file)),
      onProgress: ({ bytes }) => line.draw(() => `verifying · ${formatBytes(bytes)}`),
    });
    await state.close();
    return summary;
  } finally {
    line.erase();
  }
}

function phaseText({ phase, share, bytes, donor }: SavePhase): string {
  const parts = [phase === "asking" ? "waiting for checkpoints" : phase];
  if (share !== null) parts.push(`${Math.floor(share * 100)}%`);
  if (bytes > 0) parts.push(formatBytes(bytes));
  if (donor !== null) parts.push(`from replica ${donor}`);
  return parts.join(" · ");
}

function savedText(path: string, { instance, revision, entries, bytes }: SnapshotSummary): string {
  return `saved ${path}: revision ${revision}, ${entries} entries, ${formatBytes(bytes)}, instance ${instance}\n`;
}

function verifiedText(path: string, summary: SnapshotSummary, clusterPath: string | undefined): string {
  const { clusterFile, instance, revision, entries, bytes, root, signedBy, contradictedBy, sha256 } = summary;
  const who = (holders: SnapshotSummary["signedBy"]): string =>
    holders.map((holder) => `replica ${holder.replica} at ${holder.instance}`).join(", ");
  const trust = clusterPath === undefined ? "named by the snapshot itself: compare it" : `of ${clusterPath}`;
  return [
    `${path} is valid`,
    `cluster    ${clusterFile.clusterId} (${trust})`,
    `instance   ${instance}`,
    `revision   ${revision}`,
    `entries    ${entries}`,
    `bytes      ${bytes}`,
    `root       ${hex(root)}`,
    `signed by  ${who(signedBy)}`,
    ...(contradictedBy.length === 0 ? [] : [`not by     ${who(contradictedBy)}: signed another root, so it is faulty`]),
    `sha256     ${hex(sha256)}`,
    "",
  ].join("\n");
}

function snapshotJson(file: string, summary: SnapshotSummary): string {
  const { clusterFile, instance, revision, entries, bytes, root, timestampMs, checkpoint } = summary;
  const { signedBy, contradictedBy, sha256 } = summary;
  const what = { file, instance, revision: String(revision), entries, bytes, root: hex(root) };
  const where = { clusterId: clusterFile.clusterId, sha256: hex(sha256), timestampMs, checkpoint };
  return `${JSON.stringify({ ...what, ...where, signedBy, contradictedBy })}\n`;
}
