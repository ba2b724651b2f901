/**
 * The state under construction during a transfer (docs/protocol.md section 6): chunks are written, then batches executed on
 * it. Carries out, one after another, what the transfer decides; nothing here is visible to the live state.
 *
 * Until the state is believed, whatever fails in loading or executing it is its donor's fault, never ours: reported as
 * unusable. A failing disk is ours: it rejects.
 */
import { decodeBatch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assert } from "../../protocol/errors.ts";
import type { ImagePlace } from "../../protocol/image.ts";
import type { StagedChunk, StagedState, StateSnapshot, StateStore, Storage } from "../../storage/contract.ts";
import { ImageBuilder } from "../archive/image-builder.ts";
import type { Clock } from "../driver-contract.ts";
import type { ProvenBatch } from "../recovery/transfer-contract.ts";
import type { ServiceFactory } from "../service/contract.ts";
import { Executor, foundingOf } from "../service/executor.ts";
import type { Views } from "../views.ts";
import { overlaid } from "./overlay.ts";
import { noteSettled } from "./settled.ts";
import { Slices } from "./slices.ts";

/** Batch bytes executed before their changes are written. */
const GROUP_BYTES = 8 * 1024 * 1024;

export interface StagingOptions {
  readonly crypto: Crypto;
  readonly cluster: Cluster;
  readonly views: Views;
  readonly storage: Storage;
  readonly service: ServiceFactory;
  readonly clock: Clock;
}

/** "abandoned": the donor was dropped meanwhile, nothing is to be reported. */
export type Outcome =
  | { readonly type: "done" }
  | { readonly type: "abandoned" }
  | { readonly type: "unusable"; readonly error: unknown };

const DONE: Outcome = { type: "done" };
const ABANDONED: Outcome = { type: "abandoned" };

export class Staging {
  readonly #options: StagingOptions;
  readonly #slices: Slices;
  #opening: Promise<StagedState> | null = null;
  #staged: StagedState | null = null;
  #state: StateStore | null = null;
  #executor: Executor | null = null;
  /** While a root is computed. */
  #builder: ImageBuilder | null = null;
  #unwrittenBytes = 0;
  #abandoned = false;
  #believed = false;

  constructor(options: StagingOptions) {
    this.#options = options;
    this.#slices = new Slices(options.clock);
  }

  /** Bytes of the chunks that are staged, by digest. */
  get held(): ReadonlyMap<Digest, number> {
    return this.#open.held;
  }

  get #open(): StagedState {
    assert(this.#staged, "the staged state is used before it is opened");
    return this.#staged;
  }

  async open(): Promise<void> {
    this.#opening = this.#options.storage.stage();
    this.#staged = await this.#opening;
  }

  /** From now on the state is right: what fails in executing on it is our bug. */
  believe(): void {
    this.#believed = true;
  }

  /** What is under way ends soon, as abandoned. */
  abandon(): void {
    this.#abandoned = true;
    this.#builder?.stop();
  }

  retain(digests: ReadonlySet<Digest>): Promise<void> {
    return this.#open.retain(digests);
  }

  /** False: no image has these chunks and those that are staged. */
  add(chunks: readonly StagedChunk[]): Promise<boolean> {
    return this.#open.add(chunks);
  }

  /** Makes the chunks a state and loads an executor from it. */
  async complete(place: ImagePlace): Promise<Outcome> {
    if (this.#abandoned) return ABANDONED;
    const { instance, digest, timestampMs } = place;
    const applied = { instance, digest, timestampMs };
    const state = await this.#open.complete(applied);
    this.#state = state;
    return this.#load(state);
  }

  /** An executor where the state stands. */
  async #load(state: StateStore): Promise<Outcome> {
    const { crypto, cluster, views, service } = this.#options;
    const { applied } = state;
    // The state holds the view in force, unless it is the first one.
    const founding = foundingOf({ ...cluster, view: views.chain.genesis });
    const executor = new Executor({ crypto, ...founding, stored: state, applied, service });
    for await (const chunk of state.chunks({ from: "", to: "\u00ff" })) {
      try {
        for (const [key, value] of chunk) executor.load(key, value);
      } catch (error) {
        return { type: "unusable", error };
      }
      if (this.#abandoned) return ABANDONED;
      if (this.#slices.due) await this.#slices.turn();
    }
    this.#executor = executor;
    return DONE;
  }

  /** Executes the next batches. */
  async replay(batches: readonly ProvenBatch[]): Promise<Outcome> {
    const { crypto } = this.#options;
    const executor = this.#executor;
    if (this.#abandoned || !executor) return ABANDONED;
    for (const { bytes, digest } of batches) {
      try {
        executor.execute(decodeBatch(crypto, bytes), digest);
      } catch (error) {
        if (this.#believed) throw error;
        return { type: "unusable", error };
      }
      this.#unwrittenBytes += bytes.length;
      if (this.#unwrittenBytes >= GROUP_BYTES) await this.flush();
      if (this.#abandoned) return ABANDONED;
      if (this.#slices.due) await this.#slices.turn();
    }
    return DONE;
  }

  /** The root of the state as it stands now; null when abandoned. */
  async root(): Promise<Digest | null> {
    if (this.#abandoned || !this.#state) return null;
    await this.flush();
    return this.#rootOf(this.#state.snapshot());
  }

  /** The root after one more batch, which is undone: nothing of it is written. Null: it cannot be executed. */
  async tryOut({ bytes, digest }: ProvenBatch): Promise<Digest | null | "abandoned"> {
    const { crypto } = this.#options;
    const state = this.#state;
    const executor = this.#executor;
    if (this.#abandoned || !state || !executor) return "abandoned";
    await this.flush();
    this.#executor = null;
    let root: Digest | null = null;
    try {
      executor.execute(decodeBatch(crypto, bytes), digest);
    } catch {
      return this.#undone(state, null);
    }
    const group = executor.takeGroup();
    if (group) root = await this.#rootOf(overlaid(state.snapshot(), group));
    return root === null ? "abandoned" : this.#undone(state, root);
  }

  async #undone<T>(state: StateStore, result: T): Promise<T | "abandoned"> {
    const loaded = await this.#load(state);
    if (loaded.type === "unusable") throw loaded.error;
    return loaded.type === "done" ? result : "abandoned";
  }

  async #rootOf(snapshot: StateSnapshot): Promise<Digest | null> {
    const { crypto, views, clock } = this.#options;
    this.#builder = new ImageBuilder({ crypto, view: views.chain.genesis, clock, busy: () => false });
    try {
      return await this.#builder.rootOfState(snapshot);
    } finally {
      this.#builder = null;
      await snapshot.close();
    }
  }

  /** Everything executed is on disk when this resolves. */
  async flush(): Promise<void> {
    this.#unwrittenBytes = 0;
    const group = this.#executor?.takeGroup();
    if (!group) return;
    await this.#state?.write(group);
    this.#executor?.groupDurable();
  }

  /** The links to the view this state is in stay with it. */
  async storeViews(): Promise<void> {
    if (this.#state) await this.#options.views.store(this.#state);
  }

  /** The state is right from this instance on, and perhaps not before. */
  async settles(instance: number): Promise<void> {
    assert(this.#state, "only a completed state settles");
    await noteSettled(this.#state, instance);
  }

  /** Back to the chunks: what was executed on them is forgotten, as after a crash. */
  async discard(): Promise<void> {
    this.#abandoned = false;
    if (!this.#state) return;
    await this.close();
    await this.open();
  }

  /** What is staged stays on disk, for the next start. */
  async close(): Promise<void> {
    this.#executor = null;
    this.#unwrittenBytes = 0;
    // Who is stopped at once may be opening it still, and another one must be able to follow.
    await this.#opening?.catch(() => undefined);
    this.#opening = null;
    await this.#state?.close();
    this.#state = null;
    await this.#staged?.close();
    this.#staged = null;
  }
}
