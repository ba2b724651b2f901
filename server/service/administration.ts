/**
 * Statements of administrators at execution (docs/protocol.md sections 2 and 7): who signed, when, and whether it was executed
 * before. Deterministic: signatures are checked by the one implementation every replica has, against the administrators in
 * force, at the agreed time of the batch.
 *
 * Invariants: 1. a statement is executed at most once: numbers only rise. 2. no statement is executed after one with a higher
 * number. 3. the newest one, judged again, is answered as before, so that a lost reply can be asked for.
 *
 * No client table is involved: a statement stands for itself, whoever carries it.
 */
import type {
  AdministrationResult,
  Administrators,
  SignedStatement,
  Statement,
} from "../../protocol/administration.ts";
import {
  administered,
  decodeSignedStatement,
  encodeAdministrationResult,
  statementBytes,
} from "../../protocol/administration.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, type ErrorCode, isRejection } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { STATEMENT_AHEAD_MS_MAX, STATEMENT_BODY_BYTES_MAX } from "../../protocol/limits.ts";
import type { Request } from "../../protocol/request.ts";
import type { BatchPlace } from "./client-records.ts";
import { META_SPACE, type ReplicatedState } from "./state.ts";

export const ADMINISTRATION_KEY = `${META_SPACE}administration`;

/** Carries out a statement that is the administrators', due and new. What it refuses counts as judged all the same. */
export type CarryOut = (statement: Statement, place: BatchPlace) => AdministrationResult;

/** The newest statement judged. */
interface Judged {
  readonly number: number;
  /** Of what was signed. */
  readonly digest: Digest;
  readonly result: Uint8Array;
}

export interface AdministrationOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  /** Those in force at the instance being executed. */
  readonly administrators: () => Administrators;
  readonly carryOut: CarryOut;
}

export function administrationRefused(code: ErrorCode, message: string): AdministrationResult {
  return { type: "refused", code, message };
}

export class Administration {
  readonly #options: AdministrationOptions;
  #newest: Judged | null = null;
  #dirty = false;

  constructor(options: AdministrationOptions) {
    this.#options = options;
  }

  /** The number of the newest statement judged, 0 when there was none. */
  get number(): number {
    return this.#newest?.number ?? 0;
  }

  /** Judges the statement of an `administer` request and carries it out: the bytes of its result. */
  execute(request: Request, place: BatchPlace): Uint8Array {
    const signed = statementOf(request);
    if (signed === null) return answer(administrationRefused("INVALID_ARGUMENT", "the bytes are no statement"));
    if (!this.proven(signed)) {
      const message = "it takes the signatures of this cluster's administrators, as many as its threshold says";
      return answer(administrationRefused("NOT_ADMINISTRATOR", message));
    }
    const known = this.#settled(signed);
    if (known) return known;
    const refusal = this.#untimely(signed, place.timestampMs);
    if (refusal) return answer(refusal);
    const result = answer(this.#options.carryOut(signed, place));
    if (signed.type === "list") return result;
    this.#newest = { number: signed.number, digest: this.#digestOf(signed), result };
    this.#dirty = true;
    return result;
  }

  /** Is it the administrators', by the signatures it carries? Synchronous; statements are few. */
  proven(signed: SignedStatement): boolean {
    const { crypto, cluster, administrators } = this.#options;
    const checks = administered(cluster, signed, administrators());
    if (isRejection(checks)) return false;
    return checks.every(({ publicKey, statement, signature }) => crypto.verify(publicKey, statement, signature));
  }

  /**
   * What a statement is certainly answered now and, unless it is the newest, at any later time; null when it must be ordered.
   * Changes nothing.
   */
  lookup(request: Request): Uint8Array | null {
    const signed = statementOf(request);
    return signed && this.#settled(signed);
  }

  /** @throws Malformed */
  load(value: Uint8Array): void {
    const reader = new Reader(value);
    const number = reader.u53();
    const digest = reader.rawLatin1(32) as Digest;
    const result = Uint8Array.from(reader.bytes(STATEMENT_BODY_BYTES_MAX));
    reader.end();
    this.#newest = { number, digest, result };
  }

  /** Writes what changed since the last call into the state. */
  writeChanges(state: ReplicatedState): void {
    if (!this.#dirty || this.#newest === null) return;
    const { number, digest, result } = this.#newest;
    state.set(ADMINISTRATION_KEY, new Writer(256).u53(number).rawLatin1(digest).bytes(result).view());
    this.#dirty = false;
  }

  #digestOf(statement: Statement): Digest {
    return this.#options.crypto.sha256(statementBytes(this.#options.cluster, statement));
  }

  /** The answer to a statement that was judged before, or that another one has overtaken; null for a new one. */
  #settled(signed: SignedStatement): Uint8Array | null {
    const newest = this.#newest;
    if (newest === null || signed.type === "list" || signed.number > newest.number) return null;
    return this.#digestOf(signed) === newest.digest ? newest.result : OVERTAKEN;
  }

  #untimely({ type, number, notAfterMs }: Statement, nowMs: number): AdministrationResult | null {
    if (notAfterMs < nowMs) {
      return administrationRefused("DEADLINE", "it was ordered after the time it was to be valid until; sign it again");
    }
    if (type !== "list" && number > (nowMs + STATEMENT_AHEAD_MS_MAX) * 1000) {
      const message =
        "its number is more than an hour ahead of the cluster's time; is the administrator's clock right?";
      return administrationRefused("INVALID_ARGUMENT", message);
    }
    return null;
  }
}

const answer = (result: AdministrationResult): Uint8Array => new Uint8Array(encodeAdministrationResult(result));

const OVERTAKEN = answer({ type: "overtaken" });

/** The statement an `administer` request carries, or null. */
export function statementOf(request: Request): SignedStatement | null {
  const [command] = request.commands;
  if (request.kind !== "administer" || command === undefined) return null;
  const signed = decoded(() => decodeSignedStatement(command));
  return isRejection(signed) ? null : signed;
}
