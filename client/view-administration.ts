/**
 * Changing the membership, for those who hold administrators' keys (docs/protocol.md section 7). A change is signed here for the
 * view in force and for the one that comes out, ordered like any request, and done when this client has followed its link: a
 * lost answer is no doubt. Guarantees: nothing is ever ordered that `changedView` would refuse; the same change is never made twice.
 */
import {
  decodeAdministrationResult,
  encodeSignedStatement,
  type StatementType,
  signStatement,
} from "../protocol/administration.ts";
import { bytesOf, latin1 } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { encodeCommand } from "../protocol/commands.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, type ErrorCode, isRejection, QuorateError } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { changedView, REFUSALS } from "../protocol/next-view.ts";
import { type Change, encodeInvitation, encodeReconfiguration } from "../protocol/reconfiguration.ts";
import type { Member, View } from "../protocol/view.ts";
import { notAdministrators } from "./failures.ts";
import type { Clock, Transport } from "./ports.ts";
import { unexpected } from "./results.ts";
import { Session } from "./session.ts";
import type { SessionNumbers } from "./session-numbers.ts";
import { storedChain, type ViewStore } from "./view-follower.ts";

const FOLLOW_PAUSE_MS = 100;

export interface ViewAdministrationOptions {
  /** As the cluster file describes it. */
  readonly cluster: Cluster;
  /** The first one's connection is used; at least as many as the view's threshold. */
  readonly administrators: readonly [Identity, ...Identity[]];
  readonly crypto: Crypto;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly numbers: SessionNumbers;
  readonly store: ViewStore | null;
  /** Milliseconds to wait for the cluster, for each step. */
  readonly timeoutMs: number;
  /** Milliseconds for which what is signed is valid, in the cluster's time. */
  readonly validMs: number;
}

export class ViewAdministration {
  readonly #options: ViewAdministrationOptions;
  readonly #session: Session;

  private constructor(options: ViewAdministrationOptions, session: Session) {
    this.#options = options;
    this.#session = session;
  }

  /**
   * Connects, and follows the views to the one in force.
   * @throws QuorateError NOT_ADMINISTRATOR, and as `connect`
   */
  static async open(options: ViewAdministrationOptions): Promise<ViewAdministration> {
    const { cluster, crypto, administrators, store, timeoutMs } = options;
    const chain = await storedChain(crypto, cluster.view, store);
    const [identity] = administrators;
    const session = new Session({ ...options, identity, chain, signed: cluster.signedRequests });
    const administration = new ViewAdministration(options, session);
    try {
      await session.ready({ timeoutMs });
      await administration.#confirm();
      administration.#checkAdministrators();
      return administration;
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** The view in force when this client last heard from a quorum of it. */
  get view(): View {
    return this.#session.chain.newest;
  }

  /** Follows to the view in force, as far as a quorum tells within `timeoutMs`; the one known so far when none does. */
  async follow(timeoutMs: number): Promise<View> {
    try {
      await this.#confirm(timeoutMs);
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
    }
    return this.view;
  }

  /** The view that `change` would make of the one in force. @throws QuorateError REFUSED when it makes none */
  preview(change: Change, instance: number): View {
    const made = changedView(this.#options.crypto, this.view, { change, instance });
    if ("view" in made) return made.view;
    const { refused } = made;
    throw new QuorateError("REFUSED", `the change is refused: ${REFUSALS[refused]} (${refused})`, { reason: refused });
  }

  /** Would `change` be taken, in a batch of this instance? */
  accepts(change: Change, instance: number): boolean {
    return "view" in changedView(this.#options.crypto, this.view, { change, instance });
  }

  /** A signed note for members: let this replica fetch the state. */
  invitation(member: Member): Uint8Array {
    return this.#sign("invite", encodeInvitation(member));
  }

  /**
   * Makes the change, which is known to be ordered at or after `instance`; resolves with the new view once a quorum of its
   * members answers.
   * @throws QuorateError REFUSED (`detail.reason` of `RefusalCode`), NOT_ADMINISTRATOR, BUSY (another change came first),
   *   UNKNOWN_OUTCOME, QUORUM_UNAVAILABLE
   */
  async reconfigure(change: Change, instance: number): Promise<View> {
    const before = this.view;
    const next = this.preview(change, instance);
    const body = encodeReconfiguration({ expected: before.digest, resulting: next.digest, change });
    try {
      await this.#order(this.#sign("reconfigure", body));
    } catch (error) {
      // Whatever was answered: if the view is in force, it was done.
      if (!(await this.#reached(next, error instanceof QuorateError && error.code === "UNKNOWN_OUTCOME"))) throw error;
      return next;
    }
    if (await this.#reached(next, true)) return next;
    const message = "the change was executed, but no quorum of the new view answers yet; see kv view show";
    throw new QuorateError("QUORUM_UNAVAILABLE", message, { outcome: "executed" });
  }

  close(): Promise<unknown> {
    return this.#session.close();
  }

  #sign(type: StatementType, body: Uint8Array): Uint8Array {
    const { cluster, crypto, clock, administrators, validMs } = this.#options;
    const now = clock.wallMs();
    const statement = { type, number: Math.floor(now * 1_000), notAfterMs: Math.ceil(now + validMs), body };
    const signers = administrators.map(({ signKey, signSeed }) => ({ signKey, sign: crypto.signer(signSeed) }));
    return encodeSignedStatement(signStatement(cluster.id, statement, signers));
  }

  async #order(command: Uint8Array): Promise<void> {
    const bytes = await this.#session.administer(command, { timeoutMs: this.#options.timeoutMs });
    const result = decoded(() => decodeAdministrationResult(bytes));
    if (isRejection(result)) throw unexpected(`an unreadable result (${result.code})`);
    switch (result.type) {
      case "executed":
        return;
      case "refused": {
        const [reason] = result.message.split(":");
        throw new QuorateError(result.code as ErrorCode, `the change is refused: ${result.message}`, { reason });
      }
      case "listed":
        throw unexpected("a list of clients");
      case "overtaken":
        throw new QuorateError("BUSY", "another statement of an administrator came first; look, and try again", {
          outcome: "not-executed",
        });
      default:
        assertNever(result);
    }
  }

  /** Follows until this view, or one after it, is in force; at once or, with `patient`, for as long as one may wait. */
  async #reached(next: View, patient: boolean): Promise<boolean> {
    const { clock, timeoutMs } = this.#options;
    const end = clock.monotonicMs() + timeoutMs;
    for (;;) {
      const left = end - clock.monotonicMs();
      if (left > 0) await this.follow(left);
      const { chain } = this.#session;
      if (chain.newest.id >= next.id) return chain.of(next.id)?.digest === next.digest;
      if (!patient || left <= 0) return false;
      await new Promise<void>((resolve) => void clock.after(FOLLOW_PAUSE_MS, resolve));
    }
  }

  /** An ordered read: nobody but a quorum of the view in force can answer it, be it with a refusal. */
  async #confirm(timeoutMs = this.#options.timeoutMs): Promise<void> {
    const command = encodeCommand({ type: "get", key: bytesOf("\0") });
    try {
      await this.#session.submit(command, { lane: "read", timeoutMs }, () => undefined);
    } catch (error) {
      if (!(error instanceof QuorateError && (error.code === "REFUSED" || error.code === "NOT_PERMITTED"))) throw error;
    }
  }

  /** @throws QuorateError NOT_ADMINISTRATOR */
  #checkAdministrators(): void {
    const { administrators, administratorThreshold } = this.view;
    const known = new Set(administrators.map(latin1));
    const given = new Set(this.#options.administrators.map(({ signKey }) => latin1(signKey)));
    if ([...given].every((key) => known.has(key)) && given.size >= administratorThreshold) return;
    throw notAdministrators(this.view, given.size);
  }
}
