/**
 * Whom to fetch a checkpoint from, and for how long to wait for a better one (docs/protocol.md section 6): the choice of
 * donor-choice.ts, again and again while a transfer runs, with what was learned of the members so far.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { rootOf } from "../../protocol/image.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import { chooseDonor, type DonorChoice, isStale } from "./donor-choice.ts";
import type { Offers } from "./offers.ts";

/** So long all others are waited for before a donor is chosen among those that answered. */
const OFFERS_PATIENCE_US = 1_000_000;
/** With no usable checkpoint for so long, one at the present height is asked for. */
const NO_DONOR_US = 5_000_000;
/** So long a donor is looked for while log may do. */
const OPTIONAL_US = 20_000_000;
/** So long a younger checkpoint is waited for. */
const YOUNGER_PATIENCE_US = 10_000_000;

export interface DonorSearchOptions {
  readonly view: View;
  /** What roots are bound to. */
  readonly genesis: View;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly offers: Offers;
  readonly nowUs: () => number;
  /** Could this member serve the log from there on, as far as is known? */
  readonly servesLog: (member: ReplicaId, from: number) => boolean;
}

export class DonorSearch {
  readonly #options: DonorSearchOptions;
  #startedUs = 0;
  #position = 0;
  #optional = false;
  /** Since when no donor was found. */
  #sinceUs = 0;
  /** A root from here on is asked for, so that there is a younger checkpoint than those offered; 0: they are young enough. */
  #youngerFrom = 0;
  readonly #liars = new Set<ReplicaId>();
  readonly #tried = new Set<ReplicaId>();
  /** Roots of checkpoints that these members had given away, or did not deliver, when they were asked for, until they offer anew. */
  readonly #gone = new Map<ReplicaId, Set<Digest>>();

  constructor(options: DonorSearchOptions) {
    this.#options = options;
  }

  /** Only what is above `position` helps; `optional`: log may do as well. */
  start({ position, optional }: { readonly position: number; readonly optional: boolean }): void {
    this.#startedUs = this.#options.nowUs();
    this.#sinceUs = this.#startedUs;
    this.#position = position;
    this.#optional = optional;
  }

  /** Where the live state stands. */
  get position(): number {
    return this.#position;
  }

  /** From where on roots are needed while there is no donor; 0: none are. */
  get rootsFrom(): number {
    if (this.#youngerFrom > 0) return this.#youngerFrom;
    if (this.#searchedUs < OFFERS_PATIENCE_US) return 0;
    const above = this.#position + 1;
    return this.#searchedUs < NO_DONOR_US ? above : Math.max(above, this.#options.offers.target);
  }

  get #searchedUs(): number {
    return this.#options.nowUs() - this.#sinceUs;
  }

  /** A donor to begin with now, or null. */
  next(): DonorChoice | null {
    if (!this.#offersAreIn()) return null;
    const choice = this.#choose();
    if (!choice || this.#awaitsYounger(choice)) return null;
    if (this.#tried.has(choice.donor)) this.#tried.clear();
    this.#youngerFrom = 0;
    return choice;
  }

  /** Others may wait for this replica's votes to have anything newer: it must not wait for them in turn. */
  get needless(): boolean {
    if (!this.#optional || !this.#offersAreIn() || this.#choose()) return false;
    const { offers, view } = this.#options;
    // Who has not answered yet has not said that there is nothing newer.
    const nothingNewer = offers.all.size >= view.weakQuorum && offers.target <= this.#position;
    return this.#searchedUs >= OPTIONAL_US || nothingNewer;
  }

  /** Somebody offers all the log from where this replica stands, so that it can do without a checkpoint. */
  get logMayDo(): boolean {
    const next = this.#position + 1;
    const { offers, servesLog } = this.#options;
    return (
      this.#optional &&
      [...offers.all].some(([id, { logFirst }]) => logFirst > 0 && logFirst <= next && servesLog(id, next))
    );
  }

  /** The best donor other than this one that was not tried yet, if there is any. */
  other(donor: ReplicaId): DonorChoice | null {
    const other = this.#choose(donor);
    return other !== null && !this.#tried.has(other.donor) ? other : null;
  }

  /** Its checkpoint is not fetched any further: others come first. */
  dropped(donor: ReplicaId): void {
    this.#tried.add(donor);
    this.#sinceUs = this.#options.nowUs();
  }

  /** Never again. */
  lied(donor: ReplicaId): void {
    this.#liars.add(donor);
  }

  gone({ donor, header }: Pick<DonorChoice, "donor" | "header">): void {
    const { crypto, genesis } = this.#options;
    const roots = this.#gone.get(donor) ?? new Set();
    this.#gone.set(donor, roots.add(rootOf(crypto, genesis, header)));
  }

  /** What it offers now it has: where nothing is decided any more, nobody ever has another state than before. */
  offered(donor: ReplicaId): void {
    this.#gone.delete(donor);
  }

  #choose(withoutThis: ReplicaId | null = null): DonorChoice | null {
    const { view, genesis, self, crypto, offers, servesLog } = this.#options;
    return chooseDonor({
      view,
      self,
      offers: offers.all,
      rootsOf: (member) => offers.rootsOf(member),
      position: this.#position,
      target: offers.target,
      servesLog,
      excluded: (member, header) =>
        member === withoutThis ||
        this.#liars.has(member) ||
        (this.#gone.get(member)?.has(rootOf(crypto, genesis, header)) ?? false),
      tried: this.#tried,
    });
  }

  /** To execute the log above it would take longer than to fetch a younger one, which all are asked to take. */
  #awaitsYounger({ donor, header }: DonorChoice): boolean {
    if (this.#searchedUs >= YOUNGER_PATIENCE_US) return false;
    const { target } = this.#options.offers;
    const offer = this.#options.offers.of(donor);
    if (!offer || !isStale(header, offer, target)) return false;
    if (this.#youngerFrom === 0) this.#youngerFrom = target;
    return true;
  }

  /** All others answered, or had their time. */
  #offersAreIn(): boolean {
    const { view, offers, nowUs } = this.#options;
    if (nowUs() - this.#startedUs < OFFERS_PATIENCE_US) return offers.all.size >= view.n - 1 && !offers.checking;
    return !offers.checking || this.#searchedUs >= 2 * OFFERS_PATIENCE_US;
  }
}
