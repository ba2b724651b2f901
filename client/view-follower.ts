/**
 * The views that this client has followed (docs/protocol.md section 7). Invariants: 1. a view is adopted through its link alone:
 * its number is a hint, whoever and however many name it. 2. the view never goes back. 3. an answer that proves nothing costs
 * its sender the connection, and this client at most the signatures up to the first false one.
 */
import type { Links } from "../protocol/client-frames.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { isRejection } from "../protocol/errors.ts";
import type { View } from "../protocol/view.ts";
import { decodeChain, encodeChain, followed, ViewChain } from "../protocol/view-chain.ts";

/**
 * Where a client keeps the views it has followed, so that it finds a cluster again whose members have changed since its cluster
 * file was written. The bytes are verified when they are read: whoever alters them is ignored.
 */
export interface ViewStore {
  /** What `save` got last, or null. */
  load(): Uint8Array | null | Promise<Uint8Array | null>;
  /** A failure is ignored: what is lost is fetched again. */
  save(bytes: Uint8Array): void | Promise<void>;
}

/** `advanced`: another view is in force now. `nothing`: no news, or too late. `invalid`: it lied. */
export type LinksVerdict = "advanced" | "nothing" | "invalid";

/** The chain that the store holds; only the first view when it holds none of this cluster. */
export async function storedChain(crypto: Crypto, genesis: View, store: ViewStore | null): Promise<ViewChain> {
  const start = ViewChain.of(genesis);
  let bytes: Uint8Array | null = null;
  try {
    bytes = (await store?.load()) ?? null;
  } catch {
    return start;
  }
  const chain = bytes === null ? start : decodeChain(crypto, genesis, bytes);
  return isRejection(chain) ? start : chain;
}

export class ViewFollower {
  readonly #crypto: Crypto;
  readonly #store: ViewStore | null;
  readonly #onAdopted: (view: View) => void;
  #chain: ViewChain;
  #saved: Promise<void> = Promise.resolve();

  constructor(options: {
    crypto: Crypto;
    chain: ViewChain;
    store: ViewStore | null;
    onAdopted: (view: View) => void;
  }) {
    this.#crypto = options.crypto;
    this.#chain = options.chain;
    this.#store = options.store;
    this.#onAdopted = options.onAdopted;
  }

  /** All views so far, and what proves them. */
  get chain(): ViewChain {
    return this.#chain;
  }

  get view(): View {
    return this.#chain.newest;
  }

  /** Resolves when what was adopted is saved, or cannot be. */
  get saved(): Promise<void> {
    return this.#saved;
  }

  take({ fromView, links }: Links): LinksVerdict {
    if (fromView !== this.view.id || links.length === 0) return "nothing";
    const chain = followed(this.#crypto, this.#chain, links);
    if (isRejection(chain)) return "invalid";
    this.#chain = chain;
    this.#save();
    this.#onAdopted(chain.newest);
    return "advanced";
  }

  #save(): void {
    const store = this.#store;
    if (store === null) return;
    const bytes = encodeChain(this.#chain);
    this.#saved = this.#saved.then(() => store.save(bytes)).catch(() => undefined);
  }
}
