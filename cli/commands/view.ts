/** `kv view`: who the members are, and changing that, as an administrator. Every change shows first what it will mean. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { Command, Option } from "commander";
import { readIdentityFile } from "../../client/identity-file.ts";
import type { ViewAdministration } from "../../client/view-administration.ts";
import { hex } from "../../protocol/bytes.ts";
import { clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { QuorateError } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import { parseJoinFile, parseRotationFile } from "../../protocol/member-file.ts";
import type { Change, Ready } from "../../protocol/reconfiguration.ts";
import { type Member, memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import { parseDurationMs } from "../duration.ts";
import { usageError } from "../exit.ts";
import {
  type ClusterChoice,
  chooseCluster,
  DEFAULT_TIMEOUT_MS,
  type Format,
  type Globals,
  globalsOf,
  helpTail,
  requireFormat,
} from "../globals.ts";
import { type Io, type Network, writeOut } from "../io.ts";
import { integerIn } from "../numbers.ts";
import { lineOn } from "../progress.ts";
import { viewsOf, withKv } from "../session.ts";
import { tableText } from "../text.ts";
import { type Plan, planOf, planText } from "../view/plan.ts";

const VALID_MS = 10 * 60_000;
const WAIT_MS = 10 * 60_000;
/** How long the members are asked for the view in force while a replica is waited for. */
const FOLLOW_MS = 2_000;

interface ChangeOptions {
  readonly adminKey?: readonly string[];
  readonly dryRun?: true;
  readonly yes?: true;
  readonly validFor?: number;
  readonly wait?: number;
}

/** What is to be done, once it is known to which view. */
interface Intent {
  /** With this READY where the change takes one. */
  change(view: View, ready: Ready): Change;
  /** Who signs the READY, as it will be: null where the change takes none. */
  readonly joins: ((view: View) => Member) | null;
  /** It must fetch the state first. */
  readonly invited: boolean;
}

const NO_READY: Ready = { instance: 0, root: "\0".repeat(32), signature: new Uint8Array(64) };

export function viewCommand(io: Io): Command {
  return new Command("view")
    .description("show the membership, and change it with an administrator's key")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "A view is who the replicas are and how many of them decide. Each change makes the next one: one replica comes, goes,\n" +
          "is replaced, moves or gets other keys, or f changes. Clients follow by themselves.",
        examples: ["kv view show", "kv view add replica-4/join.json", "kv view set-f 2 --dry-run"],
      }),
    )
    .addCommand(showCommand(io))
    .addCommand(addCommand(io))
    .addCommand(removeCommand(io))
    .addCommand(replaceCommand(io))
    .addCommand(setFCommand(io))
    .addCommand(setAddressCommand(io))
    .addCommand(rotateKeyCommand(io));
}

function showCommand(io: Io): Command {
  return new Command("show")
    .description("show the view in force: members, f, quorum")
    .addHelpText(
      "after",
      helpTail({
        notes: "Needs a client key (--identity), not an administrator's; where clients are listed, one with a grant.",
        json:
          '{"view":0,"mode":"bft","n":4,"f":1,"quorum":3,"digest","administrators":{"keys":[],"threshold":1},' +
          '"members":[{"id":0,"host","clientPort","peerPort","adminPort","signKey","boxKey","connected":true}]}',
        examples: ["kv view show", "kv view show -o json"],
      }),
    )
    .action(async (_options: object, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "table", "json"]);
      await withKv(globals, io, async (kv) => {
        await kv.get("\0", { ordered: true }).catch(unlessRefused);
        const connected = new Set(kv.replicas().flatMap(({ replica, connected: up }) => (up ? [replica] : [])));
        await writeOut(io, format === "json" ? viewJson(kv.view, connected) : viewText(kv.view, connected));
      });
    });
}

/** A quorum of the view in force refused: that, too, says which view it is. */
function unlessRefused(error: unknown): void {
  const refused = error instanceof QuorateError && (error.code === "REFUSED" || error.code === "NOT_PERMITTED");
  if (!refused) throw error;
}

function viewText(view: View, connected: ReadonlySet<ReplicaId>): string {
  const { id, mode, n, f, quorum, administrators, administratorThreshold } = view;
  const head = `view ${id} (${mode}): n=${n} f=${f} quorum=${quorum}, ${administratorThreshold} of ${administrators.length} administrators sign\n`;
  const rows = view.members.map((member) => [
    `${member.id}`,
    member.host,
    `${member.clientPort}`,
    `${member.peerPort}`,
    `${member.adminPort}`,
    hex(member.signKey).slice(0, 16),
    connected.has(member.id) ? "yes" : "no",
  ]);
  return head + tableText(["REPLICA", "HOST", "CLIENTS", "PEERS", "ADMIN", "SIGN KEY", "CONNECTED"], rows);
}

function viewJson(view: View, connected: ReadonlySet<ReplicaId>): string {
  const { id, mode, n, f, quorum, digest, administrators, administratorThreshold: threshold } = view;
  const members = view.members.map((member) => {
    const { signKey, boxKey, ...rest } = member;
    return { ...rest, signKey: hex(signKey), boxKey: hex(boxKey), connected: connected.has(member.id) };
  });
  const shown = { view: id, mode, n, f, quorum, digest: hex(digest) };
  return `${JSON.stringify({ ...shown, administrators: { keys: administrators.map(hex), threshold }, members })}\n`;
}

/** A verb that changes the view, with the options all of them take. */
function changeCommand(name: string, description: string, examples: readonly string[]): Command {
  return new Command(name)
    .description(description)
    .option("--admin-key <file...>", "administrators' key files (default: admin.key beside the cluster file)")
    .option("--dry-run", "show what the change would mean, and do nothing")
    .option("--yes", "do not ask")
    .option("--valid-for <duration>", "how long what is signed may be executed (default: 10m)", parseDurationMs)
    .addHelpText(
      "after",
      helpTail({
        json:
          '{"change":"add replica 4 at …","applied":true,"before":{"view":0,"n":4,"f":1,"quorum":3,"mayStop":1},' +
          '"after":{…}}; with --dry-run "applied":false',
        examples,
      }),
    );
}

function withWait(command: Command): Command {
  return command.option(
    "--wait <duration>",
    "how long to wait until the replica is ready (default: 10m)",
    parseDurationMs,
  );
}

const replicaId = integerIn({ min: 0, max: 65_535 });

function addCommand(io: Io): Command {
  return withWait(
    changeCommand("add", "add a replica that kv init --join prepared and kv-server runs", [
      "kv view add replica-4/join.json --yes",
    ]),
  )
    .argument("<join.json>", "who it will be")
    .action((path: string, options: ChangeOptions, command: Command) =>
      applied(io, command, options, (cluster) => {
        const member = joining(path, cluster);
        return { change: (_, ready) => ({ type: "add", member, ready }), joins: () => member, invited: true };
      }),
    );
}

function removeCommand(io: Io): Command {
  return changeCommand("remove", "remove a replica", ["kv view remove 4"])
    .argument("<id>", "which one", replicaId)
    .action((id: ReplicaId, options: ChangeOptions, command: Command) =>
      applied(io, command, options, () => unattended(() => ({ type: "remove", id }))),
    );
}

function replaceCommand(io: Io): Command {
  return withWait(
    changeCommand("replace", "put a replica in the place of another one, in one step", [
      "kv view replace 2 replica-4/join.json",
    ]),
  )
    .argument("<id>", "which one goes", replicaId)
    .argument("<join.json>", "who comes")
    .action((id: ReplicaId, path: string, options: ChangeOptions, command: Command) =>
      applied(io, command, options, (cluster) => {
        const member = joining(path, cluster);
        return { change: (_, ready) => ({ type: "replace", id, member, ready }), joins: () => member, invited: true };
      }),
    );
}

function setFCommand(io: Io): Command {
  return changeCommand("set-f", "set how many faulty replicas the cluster stands", ["kv view set-f 2 --dry-run"])
    .argument("<f>", "at most (n-1)/3; (n-1)/2 in cft", integerIn({ min: 0, max: 63 }))
    .action((f: number, options: ChangeOptions, command: Command) =>
      applied(io, command, options, () => unattended(() => ({ type: "setF", f }))),
    );
}

interface AddressOptions extends ChangeOptions {
  readonly host?: string;
  readonly clientPort?: number;
  readonly peerPort?: number;
  readonly adminPort?: number;
}

function setAddressCommand(io: Io): Command {
  const port = integerIn({ min: 1, max: 65_535 });
  return changeCommand("set-address", "change where a replica listens", ["kv view set-address 2 --host 10.0.0.9"])
    .argument("<id>", "which one", replicaId)
    .option("--host <host>", "host name or address")
    .addOption(new Option("--client-port <port>", "for clients").argParser(port))
    .addOption(new Option("--peer-port <port>", "for replicas").argParser(port))
    .addOption(new Option("--admin-port <port>", "for operators").argParser(port))
    .action((id: ReplicaId, options: AddressOptions, command: Command) =>
      applied(io, command, options, () =>
        unattended((view) => {
          const { host, clientPort, peerPort, adminPort } = knownMember(view, id);
          const { host: newHost = host, clientPort: clients = clientPort, peerPort: peers = peerPort } = options;
          const address = {
            host: newHost,
            clientPort: clients,
            peerPort: peers,
            adminPort: options.adminPort ?? adminPort,
          };
          return { type: "setAddress", id, address };
        }),
      ),
    );
}

function rotateKeyCommand(io: Io): Command {
  return withWait(
    changeCommand("rotate-key", "change a replica's keys to those that kv init --rotate-key made", [
      "kv view rotate-key replica-2/rotate.json",
    ]),
  )
    .argument("<rotate.json>", "its next public keys")
    .action((path: string, options: ChangeOptions, command: Command) =>
      applied(io, command, options, (cluster) => {
        const { replica: id, cluster: theirs, signKey, boxKey } = parseRotationFile(readText(path), path);
        refuseForeign(path, theirs === clusterOf(nodeCrypto, cluster.file).id);
        return {
          change: (_, ready) => ({ type: "rotateKey", id, signKey, boxKey, ready }),
          joins: (view) => ({ ...knownMember(view, id), signKey, boxKey }),
          invited: false,
        };
      }),
    );
}

/** A change that nobody has to be ready for. */
function unattended(change: (view: View) => Change): Intent {
  return { change, joins: null, invited: false };
}

/** @throws QuorateError REFUSED */
function knownMember(view: View, id: ReplicaId): Member {
  const member = memberOf(view, id);
  if (member) return member;
  const ids = view.members.map((other) => other.id).join(", ");
  throw new QuorateError("REFUSED", `replica ${id} is no member; members are ${ids}`, { reason: "NOT_A_MEMBER" });
}

/** @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, CLUSTER_MISMATCH */
function joining(path: string, cluster: ClusterChoice): Member {
  const { cluster: theirs, member } = parseJoinFile(readText(path), path);
  refuseForeign(path, theirs === clusterOf(nodeCrypto, cluster.file).id);
  return member;
}

function refuseForeign(path: string, ours: boolean): void {
  if (ours) return;
  throw new QuorateError("CLUSTER_MISMATCH", `${path} was made for another cluster; name one of this cluster's`, {
    path,
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new QuorateError("CONFIG_MISSING", `${path} cannot be read; name a file that kv init wrote`, { path }, cause);
  }
}

/** The way of every change: connect, show, ask, wait for who must be ready, sign, follow. */
async function applied(
  io: Io,
  command: Command,
  options: ChangeOptions,
  intentOf: (cluster: ClusterChoice) => Intent,
): Promise<void> {
  const globals = globalsOf(command);
  const format = requireFormat(globals, ["simple", "table", "json"]);
  const cluster = chooseCluster(globals, io);
  const intent = intentOf(cluster);
  const network = io.network ?? { transport: (await import("../../client/transport-ws.ts")).wsTransport, fetch };
  const administration = await administrationOf({ globals, cluster, network, options });
  const planned = (): Plan => {
    const { view } = administration;
    return planOf(nodeCrypto, view, intent.change(view, NO_READY));
  };
  try {
    let plan = planned();
    if (options.dryRun) {
      await writeOut(io, format === "json" ? planJson(plan, false) : planText(plan));
      return;
    }
    io.stderr.write(planText(plan));
    if (!options.yes) await ask(io);
    const replan = async (): Promise<void> => {
      // What was agreed to was another plan; and it may be another one again when it is answered.
      while (administration.view.id !== plan.view) {
        plan = planned();
        io.stderr.write(planText(plan));
        if (!options.yes) await ask(io);
      }
    };
    const ready = await readyFor(io, { administration, network, intent, waitMs: options.wait ?? WAIT_MS, replan });
    await replan();
    const next = await administration.reconfigure(intent.change(administration.view, ready), ready.instance);
    await writeOut(io, format === "json" ? planJson(plan, true) : appliedText(next, format));
  } finally {
    await administration.close();
  }
}

function appliedText(view: View, format: Format): string {
  if (format === "table") return viewText(view, new Set());
  return `view ${view.id}: n=${view.n} f=${view.f} quorum=${view.quorum}\n`;
}

function planJson({ text, view, before, after }: Plan, done: boolean): string {
  const sizes = { before: { view, ...before }, after: { view: view + 1, ...after } };
  return `${JSON.stringify({ change: text, applied: done, ...sizes })}\n`;
}

/** @throws CommandExit (usage) unless somebody at a terminal says yes */
async function ask(io: Io): Promise<void> {
  if (!io.stdin.isTTY)
    throw usageError("nobody is there to be asked: add --yes to make the change, or --dry-run to see it");
  const terminal = createInterface({ input: io.stdin, output: io.stderr });
  try {
    const answer = await terminal.question("make this change? [y/N] ");
    if (!/^y(es)?$/i.test(answer.trim())) throw usageError("nothing was changed");
  } finally {
    terminal.close();
  }
}

async function readyFor(
  io: Io,
  options: {
    administration: ViewAdministration;
    network: Network;
    intent: Intent;
    waitMs: number;
    /** Another change may have come first. @throws QuorateError REFUSED when this one cannot be made any more */
    replan(): Promise<void>;
  },
): Promise<Ready> {
  const { administration, network, intent, waitMs, replan } = options;
  const { joins, invited } = intent;
  if (!joins) return NO_READY;
  const { readiness } = await import("../view/readiness.ts");
  const line = lineOn(io);
  let said = "";
  const waiting = readiness({
    network,
    async look() {
      const view = await administration.follow(FOLLOW_MS);
      line.erase();
      await replan();
      const member = joins(view);
      return { view, member, invitation: invited ? administration.invitation(member) : null };
    },
    accepts: (ready) => administration.accepts(intent.change(administration.view, ready), ready.instance),
    waitMs,
    onProgress(text, detail) {
      if (text !== said || detail === null) line.erase();
      if (text !== said) io.stderr.write(`kv: ${text}\n`);
      said = text;
      if (detail !== null) line.draw(() => detail);
    },
  });
  return await waiting.finally(line.erase);
}

async function administrationOf(options: {
  globals: Globals;
  cluster: ClusterChoice;
  network: Network;
  options: ChangeOptions;
}): Promise<ViewAdministration> {
  const { globals, cluster, network } = options;
  const { adminKey = [join(dirname(cluster.path), "admin.key")], validFor = VALID_MS } = options.options;
  const administrators = (await Promise.all(adminKey.map(readIdentityFile))) as [Identity, ...Identity[]];
  const { ViewAdministration } = await import("../../client/view-administration.ts");
  const { systemClock } = await import("../../client/clock.ts");
  const { SessionNumbers } = await import("../../client/session-numbers.ts");
  const { viewFile } = await import("../../client/view-file.ts");
  return await ViewAdministration.open({
    cluster: clusterOf(nodeCrypto, cluster.file),
    administrators,
    crypto: nodeCrypto,
    transport: network.transport,
    clock: systemClock(),
    numbers: new SessionNumbers(),
    store: viewFile(viewsOf(cluster)),
    timeoutMs: globals.timeout ?? DEFAULT_TIMEOUT_MS,
    validMs: validFor,
  });
}
