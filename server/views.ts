/**
 * The chain of views as this replica knows it (docs/protocol.md section 7): kept on disk, served to whoever asks, and learned
 * from others by its links alone. One chain for as long as the process lives, whatever stage runs.
 *
 * Invariants: 1. a link is followed only when every signature of it is verified. 2. links are written down in order before
 * anything is done in the view they lead to. 3. what others say of views costs a bounded number of signature checks.
 */

import type { Crypto } from "../protocol/crypto/contract.ts";
import { isRejection } from "../protocol/errors.ts";
import { LINKS_PER_ANSWER_MAX } from "../protocol/limits.ts";
import type { Message, MessageOf } from "../protocol/messages.ts";
import type { ReplicaId, View } from "../protocol/view.ts";
import { decodeLink, encodeLink, followed, type Link, ViewChain } from "../protocol/view-chain.ts";
import type { StateStore } from "../storage/contract.ts";

/** To and from one replica, links go no more often than this. */
const INTERVAL_US = 200_000;
/** After links that are none, a replica is not listened to about views for so long. */
const LIE_PAUSE_US = 10_000_000;

export interface ViewsParts {
  readonly crypto: Crypto;
  readonly genesis: View;
  readonly nowUs: () => number;
  /** A peer sent links that are none. */
  readonly misbehaved: (from: ReplicaId) => void;
}

const noteOf = (viewId: number): string => `link ${viewId}`;

export class Views {
  readonly #parts: ViewsParts;
  #chain: ViewChain;
  #stored = 0;
  readonly #servedUs = new Map<ReplicaId, number>();
  readonly #askedUs = new Map<ReplicaId, number>();
  readonly #heardUs = new Map<ReplicaId, number>();

  constructor(parts: ViewsParts) {
    this.#parts = parts;
    this.#chain = ViewChain.of(parts.genesis);
  }

  get chain(): ViewChain {
    return this.#chain;
  }

  /** What the state store holds of the chain beyond what is known already. */
  load(state: Pick<StateStore, "note">): void {
    let viewId = 0;
    for (let note = state.note(noteOf(0)); note; note = state.note(noteOf(viewId))) {
      if (viewId === this.#chain.newest.id) {
        const longer = followed(this.#parts.crypto, this.#chain, [note]);
        if (isRejection(longer)) break;
        this.#chain = longer;
      }
      viewId++;
    }
    this.#stored = viewId;
  }

  /** The newest view whose links are all on disk. */
  get stored(): number {
    return this.#stored;
  }

  /** Writes what the state store does not hold of the chain yet, synced. */
  async store(state: Pick<StateStore, "note" | "writeNote">): Promise<void> {
    for (let viewId = 0; viewId < this.#chain.newest.id; viewId++) {
      const link = this.#chain.linkFrom(viewId);
      if (link && state.note(noteOf(viewId)) === null) await state.writeNote(noteOf(viewId), encodeLink(link));
      this.#stored = Math.max(this.#stored, viewId + 1);
    }
  }

  /** Our own link, whose signatures we verified one by one. */
  adopt(view: View, link: Link): void {
    if (view.id !== this.#chain.newest.id) return;
    this.#chain = this.#chain.extended(this.#parts.crypto, link) ?? this.#chain;
  }

  /**
   * What a message of another replica says about views: links are followed, who asks for some gets them, who speaks of another view
   * than `mine` too, or is asked for those that lead there. `longer`: the chain has grown.
   */
  receive(
    from: ReplicaId,
    message: Message,
    mine: number,
  ): { readonly answer: Message | null; readonly longer: boolean } {
    if (message.type === "LINKS") return { answer: null, longer: this.#follow(from, message) };
    if (message.view === mine) return { answer: null, longer: false };
    const asked = message.type === "FETCH_LINKS";
    const answer = asked ? this.#serve(from, message.view) : this.#answerTo(from, message.view, mine);
    return { answer, longer: false };
  }

  #answerTo(from: ReplicaId, viewId: number, mine: number): Message | null {
    if (viewId > this.#chain.newest.id) return this.#ask(from, mine);
    return viewId < this.#chain.newest.id ? this.#serve(from, viewId) : null;
  }

  /** The links from this view on; null when there are none, or it had some just now. */
  #serve(to: ReplicaId, viewId: number): MessageOf<"LINKS"> | null {
    const links = this.encodedFrom(viewId);
    if (links.length === 0 || !this.#due(this.#servedUs, to, INTERVAL_US)) return null;
    return { type: "LINKS", view: this.#chain.newest.id, regency: 0, links };
  }

  /** For clients: the links from this view on, as many as one answer holds. */
  encodedFrom(viewId: number): Uint8Array[] {
    return this.#chain.linksFrom(viewId).slice(0, LINKS_PER_ANSWER_MAX).map(encodeLink);
  }

  /**
   * Those of these links that are new and lead on from the newest view, up to the first that does not; nothing is followed yet.
   * Costs the signature checks of each of them, and of the first that is none.
   */
  leadingOn(links: readonly Uint8Array[]): { readonly proven: readonly Uint8Array[]; readonly all: boolean } {
    const { crypto } = this.#parts;
    const fresh = this.#fresh(links);
    const proven: Uint8Array[] = [];
    let reached = this.#chain;
    for (const link of fresh) {
      const longer = followed(crypto, reached, [link]);
      if (isRejection(longer)) break;
      reached = longer;
      proven.push(link);
    }
    return { proven, all: proven.length === fresh.length };
  }

  /** Without those that lead to a view known here, which may bear other signatures. */
  #fresh(links: readonly Uint8Array[]): Uint8Array[] {
    const firstInstance = this.#chain.firstInstanceOf(this.#chain.newest.id);
    return links.filter((bytes) => {
      const link = decodeLink(bytes);
      return isRejection(link) || link.instance >= firstInstance;
    });
  }

  #ask(of: ReplicaId, mine: number): MessageOf<"FETCH_LINKS"> | null {
    if (!this.#due(this.#askedUs, of, INTERVAL_US)) return null;
    return { type: "FETCH_LINKS", view: Math.max(mine, this.#chain.newest.id), regency: 0 };
  }

  /** Follows what is new of these links; true when the chain is longer now. */
  #follow(from: ReplicaId, { links }: MessageOf<"LINKS">): boolean {
    const { crypto, nowUs, misbehaved } = this.#parts;
    if (nowUs() < (this.#heardUs.get(from) ?? 0)) return false;
    const { newest } = this.#chain;
    const fresh = this.#fresh(links);
    if (fresh.length === 0) return false;
    const longer = followed(crypto, this.#chain, fresh);
    if (isRejection(longer)) {
      this.#heardUs.set(from, nowUs() + LIE_PAUSE_US);
      misbehaved(from);
      return false;
    }
    this.#chain = longer;
    return longer.newest.id > newest.id;
  }

  #due(last: Map<ReplicaId, number>, replica: ReplicaId, intervalUs: number): boolean {
    const nowUs = this.#parts.nowUs();
    if (nowUs - (last.get(replica) ?? Number.NEGATIVE_INFINITY) < intervalUs) return false;
    last.set(replica, nowUs);
    return true;
  }
}
