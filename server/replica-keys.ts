/**
 * The keys of this replica as views change them (docs/protocol.md section 7): those of its key file or, once a view has the next
 * ones, those of the file beside it, which then takes its place.
 */
import { existsSync, renameSync, writeFileSync } from "node:fs";
import { sameBytes } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { type Member, memberOf, type ReplicaId, type View } from "../protocol/view.ts";
import { ROTATED_SUFFIX, readKeyFile } from "./config.ts";
import type { DriverLogger } from "./driver-contract.ts";

/** The secret keys that a member has next, beside those it has now. */
export const NEXT_KEY_SUFFIX = ".next";

export class ReplicaKeys {
  readonly #keyPath: string;
  readonly #self: ReplicaId;
  readonly #logger: DriverLogger;
  #current: Identity;
  /** The view that was last said to have other keys: `of` is asked more than once for each. */
  #saidOf: number | null = null;

  constructor(options: { keyPath: string; self: ReplicaId; identity: Identity; logger: DriverLogger }) {
    this.#keyPath = options.keyPath;
    this.#self = options.self;
    this.#logger = options.logger;
    this.#current = options.identity;
  }

  get current(): Identity {
    return this.#current;
  }

  /** The keys made for the next rotation, if there are any. */
  get next(): Identity | null {
    const file = this.#nextPath;
    return existsSync(file) ? readKeyFile(file, "replica") : null;
  }

  /** The keys in this view; the next ones become the current ones. @throws QuorateError KEY_FILE_INVALID */
  of(view: View): Identity {
    const member = memberOf(view, this.#self);
    if (!member || isOf(this.#current, member)) return this.#current;
    const { next } = this;
    if (!next || !isOf(next, member)) {
      // A view from before they were changed, which is all that is known after a loss: the others bring the newer ones.
      if (existsSync(this.#rotatedPath)) return this.#withOthersThan(view);
      const why = `view ${view.id} has other keys for replica ${this.#self} than ${this.#keyPath} and its next ones`;
      throw new QuorateError("KEY_FILE_INVALID", why, { replica: this.#self });
    }
    // Before the file itself: a start in between finds keys that are not those of the cluster file, and knows why.
    writeFileSync(this.#rotatedPath, "");
    renameSync(this.#nextPath, this.#keyPath);
    this.#current = next;
    return next;
  }

  /** The only sign of a wrong key file beside the mark of a rotation: no member takes such a replica for the one it says it is. */
  #withOthersThan({ id }: View): Identity {
    if (this.#saidOf !== id) {
      const why = "other members bring a later view with these keys, or the file is not the newest one of this replica";
      this.#logger.warn({ view: id }, `view ${id} has other keys for this replica than ${this.#keyPath}: ${why}`);
    }
    this.#saidOf = id;
    return this.#current;
  }

  get #rotatedPath(): string {
    return `${this.#keyPath}${ROTATED_SUFFIX}`;
  }

  get #nextPath(): string {
    return `${this.#keyPath}${NEXT_KEY_SUFFIX}`;
  }
}

function isOf(identity: Identity, member: Member): boolean {
  return sameBytes(identity.signKey, member.signKey) && sameBytes(identity.boxKey, member.boxKey);
}
