/**
 * Rights: no command ran whose client had no right to its keys when it was ordered (docs/protocol.md section 2, "Rights"). Judged
 * by a model of its own: statements in the order of the log, keys by the start of their bytes.
 */
import {
  type Administrators,
  administered,
  decodeAdministrationResult,
  decodeSignedStatement,
} from "../../../protocol/administration.ts";
import { type Digest, hex, latin1 } from "../../../protocol/bytes.ts";
import { decodeCommand, decodeResult } from "../../../protocol/commands.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import { decodeGrant, decodeRevocation } from "../../../protocol/grants.ts";
import { clientIdOf, publicKeysFrom } from "../../../protocol/identity.ts";
import type { Founding } from "../../../server/service/executor.ts";
import { Violation } from "../contract.ts";
import type { ExecutedCommand, ReplayedRequest, ReplayListener } from "./replay.ts";

interface Known {
  readonly read: readonly string[];
  readonly write: readonly string[];
}

const ALL: Known = { read: [""], write: [""] };
const NONE: Known = { read: [], write: [] };

export interface RightsOptions extends Pick<Founding, "clients" | "administrators"> {
  readonly crypto: Crypto;
  readonly cluster: Digest;
}

export class RightsChecker implements ReplayListener {
  readonly #options: RightsOptions;
  readonly #statements = new Map<Digest, Known>();
  #newest = 0;

  constructor(options: RightsOptions) {
    this.#options = options;
  }

  replayed({ reply, commands }: ReplayedRequest): void {
    const { request, result } = reply;
    if (request.kind === "administer" && result) this.#administered(request.commands[0] as Uint8Array, result);
    for (const command of commands) this.#check(command);
  }

  #administered(command: Uint8Array, result: Uint8Array): void {
    if (decodeAdministrationResult(result).type !== "executed") return;
    const statement = decoded(() => decodeSignedStatement(command));
    if (isRejection(statement)) throw new Violation("rights", "what is no statement was executed");
    if (!this.#signed(statement, this.#options.administrators))
      throw new Violation("rights", "a statement of a stranger was executed");
    // Of another view than the one in force it would not be executed.
    if (statement.type === "reconfigure") return;
    // The newest one may be asked about again.
    if (statement.number < this.#newest)
      throw new Violation("rights", `statement ${statement.number} was executed after ${this.#newest}`);
    if (statement.number === this.#newest) return;
    this.#newest = statement.number;
    if (statement.type === "grant") {
      const { keys, read, write } = decodeGrant(statement.body);
      this.#statements.set(clientIdOf(this.#options.crypto, publicKeysFrom(keys)), { read, write });
    } else if (statement.type === "revoke") {
      this.#statements.set(decodeRevocation(statement.body), NONE);
    }
  }

  #signed(statement: ReturnType<typeof decodeSignedStatement>, administrators: Administrators): boolean {
    const { crypto, cluster } = this.#options;
    const checks = administered(cluster, statement, administrators);
    return (
      !isRejection(checks) && checks.every((check) => crypto.verify(check.publicKey, check.statement, check.signature))
    );
  }

  #rightsOf(client: Digest): Known {
    const { clients } = this.#options;
    if (clients === "open") return ALL;
    return this.#statements.get(client) ?? (clients.has(client) ? ALL : NONE);
  }

  #check({ client, command: bytes, result, instance }: ExecutedCommand): void {
    const command = decoded(() => decodeCommand(bytes));
    if (isRejection(command) || command.type === "noop") return;
    const { read, write } = this.#rightsOf(client);
    const reads = command.type === "get" || command.type === "range";
    const answer = decodeResult(result);
    const touched =
      "key" in command ? [command.key] : answer.type === "page" ? answer.entries.map(({ key }) => key) : [];
    for (const key of touched.map(latin1)) {
      if ((reads ? read : write).some((prefix) => key.startsWith(prefix))) continue;
      const who = hex(client).slice(0, 8);
      throw new Violation(
        "rights",
        `client ${who} did a ${command.type} of "${key}" in instance ${instance} without the right to`,
      );
    }
  }
}
