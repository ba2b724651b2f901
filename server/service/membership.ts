/**
 * The view in force, as replicated state (docs/protocol.md section 7): a decided batch with a RECONFIGURE alone takes effect at
 * its end. What comes out is `nextView`, a function of view and batch and nothing else, so that who knows only the chain of
 * views comes to the same one.
 *
 * Stored, from the first change on: `bytes` view, digest of the statement that made it (32), `bytes` its result.
 */
import {
  type AdministrationResult,
  encodeAdministrationResult,
  statementBytes,
} from "../../protocol/administration.ts";
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { STATEMENT_BODY_BYTES_MAX } from "../../protocol/limits.ts";
import { nextView, reconfigurationResult } from "../../protocol/next-view.ts";
import type { Request } from "../../protocol/request.ts";
import { decodeView, encodeView, type View } from "../../protocol/view.ts";
import { statementOf } from "./administration.ts";
import { META_SPACE, type ReplicatedState } from "./state.ts";

export const VIEW_KEY = `${META_SPACE}view`;
const VIEW_BYTES_MAX = 64 * 1024;

export class Membership {
  readonly #crypto: Crypto;
  #view: View;
  /** The statement that made the view in force, and its answer: a lost reply can be asked for. */
  #made: { readonly statement: Digest; readonly result: Uint8Array } | null = null;
  #dirty = false;

  constructor(crypto: Crypto, genesis: View) {
    this.#crypto = crypto;
    this.#view = genesis;
  }

  get view(): View {
    return this.#view;
  }

  /** @throws Malformed */
  load(value: Uint8Array): void {
    const reader = new Reader(value);
    this.#view = decodeView(this.#crypto, this.#view.cluster, reader.bytes(VIEW_BYTES_MAX));
    const statement = reader.rawLatin1(32) as Digest;
    const result = Uint8Array.from(reader.bytes(STATEMENT_BODY_BYTES_MAX));
    reader.end();
    this.#made = { statement, result };
  }

  /** Executes a RECONFIGURE of this batch: the bytes of its result. */
  execute(batch: Batch, request: Request): Uint8Array {
    const known = this.lookup(request);
    if (known) return known;
    const next = nextView(this.#crypto, this.#view, batch);
    const result = answer(reconfigurationResult(next));
    if ("view" in next) {
      this.#view = next.view;
      this.#made = { statement: this.#digestOf(request), result };
      this.#dirty = true;
    }
    return result;
  }

  /** The answer to the statement that made the view in force; null for any other. */
  lookup(request: Request): Uint8Array | null {
    return this.#made && this.#digestOf(request) === this.#made.statement ? this.#made.result : null;
  }

  writeChanges(state: ReplicatedState): void {
    if (!this.#dirty || !this.#made) return;
    const { statement, result } = this.#made;
    state.set(VIEW_KEY, new Writer(1024).bytes(encodeView(this.#view)).rawLatin1(statement).bytes(result).view());
    this.#dirty = false;
  }

  #digestOf(request: Request): Digest {
    const signed = statementOf(request);
    return signed ? this.#crypto.sha256(statementBytes(this.#view.cluster, signed)) : request.digest;
  }
}

const answer = (result: AdministrationResult): Uint8Array => new Uint8Array(encodeAdministrationResult(result));
