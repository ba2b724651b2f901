/**
 * What an application may have a say in beside its service (docs/library.md): which requests this replica takes from clients,
 * and which replies it sends. Both are local to the replica. They cannot break safety: what is refused here and decided all the
 * same is executed like anything else, and a reply that is withheld is one that got lost (docs/protocol.md section 4, rule 2).
 */
import type { Digest } from "../protocol/bytes.ts";
import type { ReplyStatus } from "../protocol/client-frames.ts";
import { decodeResults } from "../protocol/commands.ts";
import { decoded, isRejection } from "../protocol/errors.ts";
import type { Request } from "../protocol/request.ts";
import type { Authenticate } from "./consensus/contract.ts";
import type { DriverLogger } from "./driver-contract.ts";
import type { OrderedReply } from "./service/executor.ts";

/** Longer reasons are cut: clients show no more. */
const REASON_CHARACTERS_MAX = 64;

/** One client's bundle of commands, as it wants them ordered. */
export interface RequestToVerify {
  readonly client: Digest;
  readonly session: number;
  readonly sequence: number;
  readonly commands: readonly Uint8Array[];
}

/**
 * Null takes the request; a short reason refuses it, all of its bundle: the client hears REFUSED with that reason. Asked at
 * intake, for a forwarded request, and for a proposed one that did not come to this replica itself. One that throws refuses.
 */
export type RequestVerifier = (request: RequestToVerify) => string | null;

/** The reply to an ordered request, before it leaves. */
export interface ReplyToSend {
  readonly client: Digest;
  readonly session: number;
  readonly sequence: number;
  readonly commands: readonly Uint8Array[];
  readonly status: ReplyStatus;
  /** Where it was executed. */
  readonly instance: number;
  /** One per command, of status OK and while they are kept. */
  readonly results: readonly Uint8Array[] | null;
  /** It was executed before; the client asks again. */
  readonly repeated: boolean;
}

/**
 * Hears of every ordered request that this replica executes, whoever its client is connected to, and of every answer given
 * again; "withhold" keeps the reply from leaving. What is executed again at a start is not told again. One that throws is
 * logged, and the reply leaves.
 */
export type Replier = (reply: ReplyToSend) => "send" | "withhold";

export class RequestHooks {
  readonly #verifier: RequestVerifier | null;
  readonly #replier: Replier | null;
  readonly #logger: DriverLogger;

  constructor(options: {
    readonly verifier?: RequestVerifier | undefined;
    readonly replier?: Replier | undefined;
    readonly logger: DriverLogger;
  }) {
    this.#verifier = options.verifier ?? null;
    this.#replier = options.replier ?? null;
    this.#logger = options.logger;
  }

  /** Why this replica does not want the request ordered, or null. */
  refusal(request: Request): string | null {
    if (this.#verifier === null || request.kind !== "ordered") return null;
    const { client, session, sequence, commands } = request;
    try {
      return this.#verifier({ client, session, sequence, commands })?.slice(0, REASON_CHARACTERS_MAX) ?? null;
    } catch (error) {
      this.#logger.error({ error: String(error) }, "the request verifier failed: the request is refused");
      return "VERIFIER_FAILED";
    }
  }

  /** For the core: what is refused here is not proven here, and others may vouch for it. */
  authenticating(authenticate: Authenticate): Authenticate {
    if (this.#verifier === null) return authenticate;
    return (request, envelope) => {
      const verdict = authenticate(request, envelope);
      return verdict !== "unproven" && this.refusal(request) !== null ? "unproven" : verdict;
    };
  }

  /** May this reply leave? */
  leaves(reply: OrderedReply, { repeated }: { readonly repeated: boolean }): boolean {
    if (this.#replier === null || reply.request.kind !== "ordered") return true;
    const { client, session, sequence, commands } = reply.request;
    const { status, instance, result } = reply;
    const results = status === "OK" && result ? decoded(() => decodeResults(result)) : null;
    try {
      const told = { client, session, sequence, commands, status, instance, repeated };
      return this.#replier({ ...told, results: results === null || isRejection(results) ? null : results }) === "send";
    } catch (error) {
      this.#logger.error({ error: String(error) }, "the replier failed: the reply leaves");
      return true;
    }
  }
}
