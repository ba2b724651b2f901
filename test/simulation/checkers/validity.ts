/** Validity: whatever is decided was issued by the client it names; nobody else can make a request up (docs/protocol.md section 2). */
import { type Digest, hex } from "../../../protocol/bytes.ts";
import type { Request } from "../../../protocol/request.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

export class ValidityChecker implements RunObserver {
  /** Who issued the request with this digest. */
  readonly #issuers = new Map<Digest, Digest>();

  issued(event: { readonly client: Digest; readonly request: Request }): void {
    this.#issuers.set(event.request.digest, event.client);
  }

  decided(event: {
    readonly replica: ReplicaId;
    readonly instance: number;
    readonly requests: readonly Request[];
  }): void {
    for (const request of event.requests) {
      const issuer = this.#issuers.get(request.digest);
      if (issuer === request.client) continue;
      const { session, sequence } = request;
      const who = issuer === undefined ? "nobody issued it" : `client ${hex(issuer).slice(0, 8)} issued it`;
      throw new Violation(
        "validity",
        `replica ${event.replica} decided, in instance ${event.instance}, request ${session}.${sequence} ` +
          `in the name of client ${hex(request.client).slice(0, 8)}: ${who}`,
      );
    }
  }
}
