/** Equal state roots at equal instances: execution is deterministic, whatever restarts lie before it (docs/protocol.md section 6). */
import { type Digest, hex } from "../../../protocol/bytes.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

export class StateRootsChecker implements RunObserver {
  readonly #roots = new Map<number, { readonly root: Digest; readonly replica: ReplicaId }>();

  executed(event: { readonly replica: ReplicaId; readonly instance: number; readonly root: Digest }): void {
    const { replica, instance, root } = event;
    const known = this.#roots.get(instance);
    if (!known) this.#roots.set(instance, { root, replica });
    else if (known.root !== root) {
      throw new Violation(
        "state-roots",
        `after instance ${instance} the state of replica ${replica} has root ${hex(root).slice(0, 12)}, ` +
          `that of replica ${known.replica} had ${hex(known.root).slice(0, 12)}`,
      );
    }
  }
}
