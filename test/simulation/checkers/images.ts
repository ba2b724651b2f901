/**
 * Equal images: whatever correct replicas say of the state after one instance, in ROOT and OFFER, is the same
 * (docs/protocol.md section 6), whether they executed it, rebuilt it or fetched it.
 */
import { type Digest, hex } from "../../../protocol/bytes.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { rootOf } from "../../../protocol/image.ts";
import type { Message } from "../../../protocol/messages.ts";
import type { ReplicaId, View } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

export class ImagesChecker implements RunObserver {
  readonly #crypto: Crypto;
  readonly #view: View;
  readonly #roots = new Map<number, { readonly root: Digest; readonly replica: ReplicaId }>();

  constructor({ crypto, view }: { readonly crypto: Crypto; readonly view: View }) {
    this.#crypto = crypto;
    this.#view = view;
  }

  voted({ replica, message }: { readonly replica: ReplicaId; readonly message: Message }): void {
    if (message.type === "ROOT") this.#said(replica, message.instance, message.root);
    if (message.type !== "OFFER") return;
    for (const { instance, root } of message.roots) this.#said(replica, instance, root);
    for (const header of message.checkpoints)
      this.#said(replica, header.instance, rootOf(this.#crypto, this.#view, header));
  }

  #said(replica: ReplicaId, instance: number, root: Digest): void {
    const known = this.#roots.get(instance);
    if (!known) this.#roots.set(instance, { root, replica });
    else if (known.root !== root) {
      throw new Violation(
        "images",
        `after instance ${instance} the image of replica ${replica} has root ${hex(root).slice(0, 12)}, ` +
          `that of replica ${known.replica} had ${hex(known.root).slice(0, 12)}`,
      );
    }
  }
}
