/**
 * Changes the views of a simulated world again and again, one member or f at a time, as a careful administrator does: nobody
 * becomes a member who does not have the state, and f never falls below what the faults of the run may use up.
 */
import type { Change } from "../../protocol/reconfiguration.ts";
import { faultsTolerated, type ReplicaId } from "../../protocol/view.ts";
import { Administrator, addressAt } from "./administration.ts";
import type { World } from "./world.ts";

const PAUSE_US = 1_500_000;
/** Who has the state may be so many instances behind. */
const LAG_MAX = 20;

export class Reconfigurer {
  readonly #world: World;
  readonly #administrator: Administrator;
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
    this.#administrator = new Administrator(world);
  }

  start(): void {
    const { scheduler, trace } = this.#world;
    scheduler.after(scheduler.exponential(PAUSE_US), () => {
      if (this.#stopped) return;
      const change = this.#draw();
      if (change) {
        trace.count(`change of the view asked for: ${change.type}`);
        this.#administrator.order(change);
      }
      this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  #draw(): Change | null {
    const { scheduler, view } = this.#world;
    const { random } = scheduler;
    const { members, f, mode, n } = view;
    const { id } = random.pick(members);
    const joining = this.#ready();
    switch (random.below(6)) {
      case 0:
        return joining === null ? null : this.#administrator.adding(joining);
      case 1:
        return joining === null ? null : this.#administrator.replacing(id, joining);
      case 2:
        return faultsTolerated({ n: n - 1, mode }) < f ? null : { type: "remove", id };
      case 3:
        return this.#changeOfF();
      case 4:
        return { type: "setAddress", id, address: addressAt(`h${this.#world.nowUs}`) };
      default:
        return this.#administrator.rotating(id, view.id);
    }
  }

  #changeOfF(): Change | null {
    const { view, options } = this.#world;
    const { f, n, mode } = view;
    if (f > options.f) return { type: "setF", f: f - 1 };
    return faultsTolerated({ n, mode }) > f ? { type: "setF", f: f + 1 } : null;
  }

  /** A replica that was never a member and has what is decided. */
  #ready(): ReplicaId | null {
    const { machines, view, decided } = this.#world;
    const found = machines.find(({ self, trusted, replica }) => {
      if (self < view.idsBelow || !trusted || replica?.core.state.view !== view.id) return false;
      return replica.executedInstance > 0 && replica.executedInstance >= decided - LAG_MAX;
    });
    return found?.self ?? null;
  }
}
