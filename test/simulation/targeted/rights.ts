/**
 * Administrators grant, narrow and revoke what a lying client may do, grants expire, statements come late, twice or unsigned, and
 * the client tries every key and range, in the log and beside it. Each command must be executed exactly if a naive model says so
 * (docs/protocol.md section 2, "Rights").
 */
import {
  decodeAdministrationResult,
  encodeSignedStatement,
  type Statement,
  signStatement,
} from "../../../protocol/administration.ts";
import { EMPTY, latin1, utf8 } from "../../../protocol/bytes.ts";
import { type Command, decodeResult, decodeResults, encodeCommand } from "../../../protocol/commands.ts";
import { encodeGrant, encodeRevocation } from "../../../protocol/grants.ts";
import { clientIdOf, publicKeysBytes } from "../../../protocol/identity.ts";
import { canonicalPrefixes } from "../../../protocol/key-ranges.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";
import { Executor } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";
import { Violation } from "../contract.ts";
import { CLIENT, CLUSTER, GENESIS } from "../core-replica.ts";
import { identityOf } from "../crypto.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { type Random, seeded } from "../random.ts";

const STEPS = 60;
const BYTES = ["a", "b", "c"];
const LIAR = identityOf("a lying client");
const LIAR_ID = clientIdOf(fastCrypto, LIAR);
const ADMINISTRATOR = identityOf("administrator");

function words(lengthMax: number): string[] {
  const all = [""];
  for (let at = 0; at < all.length; at++) {
    const base = all[at] as string;
    if (base.length < lengthMax) all.push(...BYTES.map((byte) => base + byte));
  }
  return all;
}
const KEYS = words(3).slice(1);
/** One byte longer than any prefix that is granted, so that between two of them every gap holds one. */
const UNIVERSE = words(4).flatMap((key) => [key, `${key}\0`, `${key}z`]);

interface Model {
  /** Null: no client. */
  rights: { read: string[]; write: string[]; expiresMs: number } | null;
  number: number;
}

function request(kind: Request["kind"], sequence: number, commands: readonly Uint8Array[]): Request {
  const fields = { cluster: CLUSTER, client: LIAR_ID, session: 1, sequence, ackedBelow: 0, deadlineMs: 0 };
  return decodeRequest(fastCrypto, encodeRequest({ ...fields, kind, commands }));
}

function drawCommand(random: Random): Command {
  const key = utf8(random.pick(KEYS));
  switch (random.below(5)) {
    case 0:
      return { type: "put", key, value: utf8("v"), ifRevision: null };
    case 1:
      return { type: "delete", key, ifRevision: null };
    case 2:
      return { type: "cas", key, expect: 0, value: utf8("v") };
    case 3:
      return { type: "get", key };
    default: {
      const to = random.chance(0.2) ? null : utf8(random.pick(KEYS));
      return {
        type: "range",
        from: utf8(random.pick(UNIVERSE)),
        to,
        limit: 1,
        reverse: random.chance(0.5),
        keysOnly: true,
      };
    }
  }
}

function isAllowed(command: Command, { rights }: Model, nowMs: number): boolean {
  if (!rights || (rights.expiresMs !== 0 && nowMs >= rights.expiresMs)) return false;
  const covered = (prefixes: readonly string[], key: string): boolean =>
    prefixes.some((prefix) => key.startsWith(prefix));
  if (command.type === "noop") return true;
  if (command.type === "get") return covered(rights.read, latin1(command.key));
  if (command.type !== "range") return covered(rights.write, latin1(command.key));
  const from = latin1(command.from);
  const to = command.to === null ? null : latin1(command.to);
  const inside = UNIVERSE.filter((key) => key >= from && (to === null || key < to));
  // Beyond every key of the universe there are others.
  return inside.every((key) => covered(rights.read, key)) && (to !== null || covered(rights.read, "\xff"));
}

export function rights(seed: number): void {
  const random = seeded(seed);
  const executor = new Executor({
    crypto: fastCrypto,
    cluster: CLUSTER,
    clients: new Set([CLIENT]),
    administrators: { keys: [ADMINISTRATOR.signKey], threshold: 1 },
    maxClients: 10,
    stored: { get: () => undefined },
    applied: { instance: 0, digest: GENESIS, timestampMs: 1_000 },
    service: (state) => new KvService(state),
  });
  const model: Model = { rights: null, number: 0 };
  const issued: { statement: Statement; command: Uint8Array; genuine: boolean }[] = [];
  const execute = (value: Request, timestampMs: number) => {
    const instance = executor.applied.instance + 1;
    const [reply] = executor.execute(
      { instance, timestampMs, requests: [value] },
      fastCrypto.sha256(utf8(`${instance}`)),
    );
    if (!reply) throw new Violation("rights", "no reply");
    return reply;
  };
  let sequence = 0;
  for (let step = 0; step < STEPS; step++) {
    const nowMs = executor.applied.timestampMs + random.below(4);
    if (random.chance(0.4)) order(random, { execute, model, issued }, nowMs);
    const command = drawCommand(random);
    const bytes = encodeCommand(command);
    const reads = command.type === "get" || command.type === "range";
    const ordered = !reads || random.chance(0.5);
    const atMs = ordered ? nowMs : executor.applied.timestampMs;
    const may = isAllowed(command, model, atMs);
    // The session changes with every revocation: a client's sessions go with it.
    const value = { ...request(ordered ? "ordered" : "unordered", ++sequence, [bytes]), session: 1 + model.number };
    const result = ordered ? execute(value, nowMs) : { status: "OK", result: executor.query(value)?.result ?? null };
    const [first] = result.status === "OK" && result.result ? decodeResults(result.result) : [];
    const answer = first && decodeResult(first);
    const did = answer !== undefined && !(answer.type === "refused" && answer.code === "NOT_PERMITTED");
    if (did === may) continue;
    throw new Violation(
      "rights",
      `a ${command.type} was ${did ? "executed without" : "refused in spite of"} the right to it`,
    );
  }
}

function order(
  random: Random,
  parts: {
    execute: (value: Request, timestampMs: number) => { result: Uint8Array | null };
    model: Model;
    issued: { statement: Statement; command: Uint8Array; genuine: boolean }[];
  },
  nowMs: number,
): void {
  const { execute, model, issued } = parts;
  const old = issued.length > 0 && random.chance(0.4);
  const chosen = old ? random.pick(issued) : sign(random, model, nowMs);
  if (!old) issued.push(chosen);
  // Some are not sent at once: they come when others have been executed.
  if (!old && random.chance(0.3)) return;
  const { statement, command, genuine } = chosen;
  const { result } = execute(request("administer", 1, [command]), nowMs);
  const done = decodeAdministrationResult(result ?? EMPTY).type === "executed";
  const fresh = genuine && statement.number > model.number && statement.notAfterMs >= nowMs;
  const again = genuine && statement.number === model.number;
  if (done && !fresh && !again)
    throw new Violation("rights", "a statement was executed that is late, forged or overtaken");
  if (!fresh) return;
  model.number = statement.number;
  if (!done) return;
  model.rights = statement.type === "revoke" ? null : grantOf(statement);
}

const drawn = new WeakMap<Uint8Array, NonNullable<Model["rights"]>>();

function grantOf({ body }: Statement): NonNullable<Model["rights"]> {
  const rights = drawn.get(body);
  if (!rights) throw new Error("a grant that nobody drew");
  return rights;
}

function sign(
  random: Random,
  model: Model,
  nowMs: number,
): { statement: Statement; command: Uint8Array; genuine: boolean } {
  const prefixes = (): string[] =>
    canonicalPrefixes(Array.from({ length: random.below(4) }, () => random.pick(words(2).slice(1))));
  const rights = {
    read: prefixes(),
    write: ["b", ...prefixes()],
    expiresMs: random.chance(0.4) ? nowMs + 1 + random.below(20) : 0,
  };
  rights.write = canonicalPrefixes(rights.write);
  const type = random.chance(0.7) ? "grant" : "revoke";
  const body = type === "grant" ? encodeGrant({ keys: publicKeysBytes(LIAR), ...rights }) : encodeRevocation(LIAR_ID);
  drawn.set(body, rights);
  const statement: Statement = {
    type,
    number: model.number + 1 + random.below(3),
    notAfterMs: nowMs + random.below(30),
    body,
  };
  const genuine = random.chance(0.85);
  const { signKey, signSeed } = genuine ? ADMINISTRATOR : LIAR;
  const signed = signStatement(CLUSTER, statement, [{ signKey, sign: fastCrypto.signer(signSeed) }]);
  // A forger names the administrator's key and signs with his own.
  const named = genuine
    ? signed
    : { ...signed, signatures: signed.signatures.map((one) => ({ ...one, key: ADMINISTRATOR.signKey })) };
  return { statement, command: encodeSignedStatement(named), genuine };
}
