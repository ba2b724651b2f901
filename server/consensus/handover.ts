/**
 * The end of a view (docs/protocol.md section 7): the batch that ends it is decided on Q *signed* ACCEPTs, which together
 * are the link to the next view, for anybody and for ever.
 *
 * Invariants: 1. a signed ACCEPT counts only once its signature is verified; one per sender and regency counts, the first.
 * 2. the link holds signatures of one regency on the decided digest. 3. until the link is complete this replica stays in its
 * view: it votes on the last instance again, as often as regencies change, and on nothing above it.
 */
import type { Digest } from "../../protocol/bytes.ts";

import { acceptStatement, type MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { Link } from "../../protocol/view-chain.ts";
import type { CoreContext } from "./context.ts";
import type { Candidate } from "./running-instance.ts";
import { VoteBox } from "./votes.ts";

type SignedAccept = MessageOf<"SIGNED_ACCEPT">;

/** Regencies whose signed ACCEPTs are kept at a time: those a decision may still come from. */
const REGENCIES_MAX = 8;

const NONE = new VoteBox();

export interface HandoverPort {
  progress(): void;
  /** The link is complete. */
  linked(): void;
}

export class Handover {
  readonly #context: CoreContext;
  readonly #port: HandoverPort;
  /** Of the running or the last instance by regency: everybody's first, and of these the verified ones. */
  readonly #received = new Map<number, VoteBox>();
  readonly #verified = new Map<number, VoteBox>();
  #instance = 0;
  /** The decided batch that ends the view, and the digest below it. */
  #last: { readonly candidate: Candidate; readonly previous: Digest } | null = null;
  #linked = false;

  constructor(context: CoreContext, port: HandoverPort) {
    this.#context = context;
    this.#port = port;
  }

  /** The view's last instance is decided: nothing above it is voted on. */
  get ended(): boolean {
    return this.#last !== null;
  }

  sign({ view, regency, instance, digest }: MessageOf<"ACCEPT">): SignedAccept {
    const { signer, cluster } = this.#context;
    const statement = { view, regency, instance, digest };
    return { type: "SIGNED_ACCEPT", ...statement, signature: signer(acceptStatement(cluster, statement)) };
  }

  /** Our own, whose record is on disk. */
  own(accept: SignedAccept): void {
    const { regency, instance, digest, signature } = accept;
    if (!this.#opens(instance)) return;
    const vote = { sender: this.#context.self, digest, signature, standing: "valid" as const };
    this.#box(this.#received, regency).add(vote);
    this.#box(this.#verified, regency).add(vote);
    this.#tryLink();
  }

  receive(from: ReplicaId, accept: SignedAccept): void {
    const { view, regency, instance, digest, signature } = accept;
    if (!this.#opens(instance)) return;
    if (!this.#box(this.#received, regency).add({ sender: from, digest, signature, standing: "unverified" })) return;
    const statement = acceptStatement(this.#context.cluster, { view, regency, instance, digest });
    const publicKey = this.#context.member(from).signKey;
    this.#context.verify([{ publicKey, statement, signature }], ([valid]) => {
      if (!valid) {
        this.#context.emit({ type: "misbehaved", replica: from, code: "ACCEPT_SIGNATURE" });
        return;
      }
      if (instance !== this.#instance) return;
      this.#box(this.#verified, regency).add({ sender: from, digest, signature, standing: "valid" });
      this.#tryLink();
      this.#port.progress();
    });
  }

  /** The verified signed ACCEPTs of one regency. */
  votes(instance: number, regency: number): VoteBox {
    return (instance === this.#instance ? this.#verified.get(regency) : undefined) ?? NONE;
  }

  /** This batch, which ends the view, is decided on top of `previous`. */
  decided(candidate: Candidate, previous: Digest): void {
    this.#last = { candidate, previous };
    this.#tryLink();
  }

  /** Somebody else's link from this view, verified: it is as good as ours. */
  complete(link: Link): void {
    if (this.#linked || this.#last?.candidate.batch.instance !== link.instance) return;
    this.#linked = true;
    this.#context.emit({ type: "link", link });
    this.#port.linked();
  }

  #tryLink(): void {
    const last = this.#last;
    if (!last || this.#linked) return;
    const { digest, bytes, batch } = last.candidate;
    const { quorum } = this.#context.view;
    for (const [regency, votes] of [...this.#verified].sort(([a], [b]) => a - b)) {
      if (votes.count(digest) < quorum) continue;
      const signed = votes.of(digest).slice(0, quorum);
      const signatures = signed.map(({ sender, signature }) => ({ replica: sender, signature }));
      signatures.sort((a, b) => a.replica - b.replica);
      const { instance } = batch;
      this.complete({ instance, regency, previous: last.previous, batch: bytes, votes: signatures });
      return;
    }
  }

  /** False for what came too late. */
  #opens(instance: number): boolean {
    if (instance < this.#instance || (this.#last && instance > this.#instance)) return false;
    if (instance > this.#instance) {
      this.#instance = instance;
      this.#received.clear();
      this.#verified.clear();
    }
    return true;
  }

  #box(boxes: Map<number, VoteBox>, regency: number): VoteBox {
    const box = boxes.get(regency) ?? new VoteBox();
    boxes.set(regency, box);
    if (boxes.size > REGENCIES_MAX) boxes.delete(Math.min(...boxes.keys()));
    return box;
  }
}
