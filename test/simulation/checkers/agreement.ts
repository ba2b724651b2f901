/**
 * Agreement: all correct replicas decide the same batch in an instance and execute what was decided (docs/protocol.md
 * section 4), also across restarts. Where the start of the history is known, each digest is computed anew from the batch,
 * so that equal digests mean equal batches and an unbroken chain.
 */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { type Digest, hex } from "../../../protocol/bytes.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import type { Request } from "../../../protocol/request.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

export interface Chain {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  /** h(0). */
  readonly genesis: Digest;
}

interface Agreed {
  readonly digest: Digest;
  readonly replica: ReplicaId;
  /** The digests of its requests and its time, or null while only an execution was seen. */
  content: string | null;
}

interface Decided {
  readonly replica: ReplicaId;
  readonly instance: number;
  readonly digest: Digest;
  readonly requests: readonly Request[];
  readonly timestampMs?: number;
}

function contentOf({ requests, timestampMs }: Decided): string {
  return `${timestampMs} ${requests.map((request) => request.digest).join("")}`;
}

export class AgreementChecker implements RunObserver {
  readonly #agreed = new Map<number, Agreed>();
  readonly #chain: Chain | null;

  constructor(chain: Chain | null = null) {
    this.#chain = chain;
  }

  /** The digest that the correct replicas decided, if any did. */
  digestOf(instance: number): Digest | undefined {
    return this.#agreed.get(instance)?.digest;
  }

  decided(event: Decided): void {
    const agreed = this.#agree(event, "decided");
    const content = contentOf(event);
    if (agreed.content === null) {
      agreed.content = content;
      this.#checkChain(event);
    } else if (agreed.content !== content) {
      const { replica, instance } = event;
      throw new Violation(
        "agreement",
        `replicas ${agreed.replica} and ${replica} decided different batches under one digest in instance ${instance}`,
      );
    }
  }

  executed(event: { readonly replica: ReplicaId; readonly instance: number; readonly digest: Digest }): void {
    this.#agree(event, "executed");
  }

  #agree(event: { replica: ReplicaId; instance: number; digest: Digest }, verb: "decided" | "executed"): Agreed {
    const { replica, instance, digest } = event;
    const known = this.#agreed.get(instance);
    if (!known) {
      const agreed: Agreed = { digest, replica, content: null };
      this.#agreed.set(instance, agreed);
      return agreed;
    }
    if (known.digest === digest) return known;
    throw new Violation(
      "agreement",
      `in instance ${instance} replica ${replica} ${verb} ${hex(digest).slice(0, 12)}, ` +
        `replica ${known.replica} before it ${hex(known.digest).slice(0, 12)}`,
    );
  }

  #checkChain(event: Decided): void {
    const { instance, digest, requests, timestampMs } = event;
    if (this.#chain === null || timestampMs === undefined) return;
    const { crypto, cluster, genesis } = this.#chain;
    const previous = instance === 1 ? genesis : this.digestOf(instance - 1);
    if (previous === undefined) return;
    const batch = encodeBatch({ instance, timestampMs, requests: requests.map((request) => request.bytes) });
    const batchDigest = crypto.sha256(batch);
    if (historyDigest(crypto, { cluster, instance, previous, batchDigest }) === digest) return;
    throw new Violation(
      "agreement",
      `what replica ${event.replica} decided in instance ${instance} does not hash onto the history before it`,
    );
  }
}
