/**
 * One replica in one view, and what it hears of others (docs/protocol.md section 7): links go to whoever speaks of an older view
 * and are asked of whoever speaks of a later one; the view is over for this replica once its last batch is executed and its
 * link is known.
 */
import type { Message } from "../protocol/messages.ts";
import type { ReplicaId, View } from "../protocol/view.ts";
import type { Link } from "../protocol/view-chain.ts";
import type { Views } from "./views.ts";

export interface ViewChangePort {
  send(to: ReplicaId, message: Message): void;
  /** A link from this view, verified: the core gets to where it leads. */
  follow(link: Link): void;
  /** The view in force after what was executed. */
  executed(): View;
  over(): void;
  /** @returns what cancels it */
  after(delayUs: number, run: () => void): () => void;
  /** Who has the log of this view may be gone by now: else the state of the newest view is to be had from its members. */
  behind(): void;
}

/** So long a replica that knows of a later view tries to get there by log. */
const BEHIND_PATIENCE_US = 10_000_000;

export class ViewChange {
  readonly #views: Views;
  readonly #view: View;
  readonly #port: ViewChangePort;
  #cancelBehind: (() => void) | null = null;

  constructor(views: Views, view: View, port: ViewChangePort) {
    this.#views = views;
    this.#view = view;
    this.#port = port;
  }

  /** Links, and whoever speaks of another view than ours. True when there is nothing in it for the core. */
  receive(from: ReplicaId, message: Message): boolean {
    const { answer, longer } = this.#views.receive(from, message, this.#view.id);
    if (longer) this.follow();
    if (answer) this.#port.send(from, answer);
    return message.type === "LINKS" || message.type === "FETCH_LINKS";
  }

  /** What is known of the next view already. */
  follow(): void {
    const link = this.#views.chain.linkFrom(this.#view.id);
    if (!link) return;
    this.#port.follow(link);
    this.#cancelBehind ??= this.#port.after(BEHIND_PATIENCE_US, () => this.#port.behind());
  }

  /** Our own link is complete. */
  linked(link: Link): void {
    this.#views.adopt(this.#view, link);
    this.look();
  }

  /** The replica has ended, in this view or for good. */
  close(): void {
    this.#cancelBehind?.();
  }

  look(): void {
    const { id } = this.#view;
    if (this.#port.executed().id > id && this.#views.chain.newest.id > id) this.#port.over();
  }
}
