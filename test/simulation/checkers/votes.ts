/**
 * No correct replica contradicts itself, whatever crashes and restarts lie between (docs/protocol.md sections 4 and 5):
 * 1. one WRITE and one ACCEPT per (view, regency, instance);
 * 2. one batch per (view, regency, instance) by PROPOSE or SYNC, and one SYNC per (view, regency);
 * 3. after STOPDATA for a regency no vote and no proposal of a lower one that had not left before;
 * 4. STOPDATA names an accept record at least as new as the newest ACCEPT of a lower regency that ever left.
 *
 * What was sent once may be sent again: the network could have delayed it as well. Envelopes of a proposal lie outside its
 * digest and may differ, and so may the STOPDATAs that prove a SYNC. A lost disk changes nothing: whoever forgot what it
 * said is silent until that cannot matter. A STOPDATA that nobody took, and its sender has forgotten, cannot.
 */
import { type Digest, hex } from "../../../protocol/bytes.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { Malformed } from "../../../protocol/errors.ts";
import { Reader } from "../../../protocol/layout.ts";
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

interface Accepted {
  readonly instance: number;
  readonly regency: number;
  readonly digest: Digest;
}

/** What left one replica in one view. */
interface Said {
  /** Digest by kind and place. */
  readonly statements: Map<string, Digest>;
  /** The newest ACCEPT of each regency. */
  readonly accepted: Map<number, Accepted>;
  /** The highest regency of a STOPDATA that left, and of one that anybody has taken, or -1. */
  stopped: number;
  promised: number;
}

interface Place {
  readonly regency: number;
  readonly instance: number;
}

/** The instance in a batch's header. */
function instanceOf(batch: Uint8Array): number | null {
  try {
    const reader = new Reader(batch);
    reader.u32();
    return reader.u53();
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

function newer(a: Place, b: Place): boolean {
  return a.instance > b.instance || (a.instance === b.instance && a.regency > b.regency);
}

export class VotesChecker implements RunObserver {
  readonly #crypto: Crypto;
  readonly #said = new Map<string, Said>();
  /** Whose disk was lost some time: what they said and nobody took is gone with it. */
  readonly #lost = new Set<ReplicaId>();
  readonly #decided = new Map<string, Digest>();

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
  }

  voted(event: { readonly replica: ReplicaId; readonly message: Message }): void {
    const { replica, message } = event;
    const said = this.#of(replica, message.view);
    switch (message.type) {
      case "PROPOSE":
        this.#propose(replica, said, { regency: message.regency, instance: message.instance }, message.batch);
        return;
      case "SYNC":
        this.#sync(replica, said, message);
        return;
      case "WRITE":
        this.#state(replica, said, "WRITE", message, message.digest);
        return;
      case "ACCEPT":
        this.#state(replica, said, "ACCEPT", message, message.digest);
        // One that was said before may be sent again after its instance went to another batch.
        if ((this.#decided.get(`${replica} ${message.instance}`) ?? message.digest) !== message.digest) return;
        this.#remember(said, message);
        return;
      case "STOPDATA":
        this.#stopData(replica, said, message);
        return;
      default:
        // The other messages bind nobody.
        return;
    }
  }

  /** An accepted batch that lost its instance to another one is not owed to anybody any more. */
  decided({ replica, instance, digest }: { replica: ReplicaId; instance: number; digest: Digest }): void {
    this.#decided.set(`${replica} ${instance}`, digest);
    for (const [name, { accepted }] of this.#said) {
      if (!name.startsWith(`${replica} `)) continue;
      for (const [regency, accept] of accepted) {
        if (accept.instance === instance && accept.digest !== digest) accepted.delete(regency);
      }
    }
  }

  lost({ replica }: { readonly replica: ReplicaId }): void {
    this.#lost.add(replica);
  }

  promised({
    replica,
    view,
    regency,
  }: {
    readonly replica: ReplicaId;
    readonly view: number;
    readonly regency: number;
  }) {
    const said = this.#of(replica, view);
    said.promised = Math.max(said.promised, regency);
  }

  unnoticed({ replica }: { readonly replica: ReplicaId }): void {
    for (const [name, { accepted }] of this.#said) if (name.startsWith(`${replica} `)) accepted.clear();
  }

  #of(replica: ReplicaId, view: number): Said {
    const name = `${replica} ${view}`;
    let said = this.#said.get(name);
    if (!said) {
      said = { statements: new Map(), accepted: new Map(), stopped: -1, promised: -1 };
      this.#said.set(name, said);
    }
    return said;
  }

  #propose(replica: ReplicaId, said: Said, place: Place, batch: Uint8Array): void {
    if (instanceOf(batch) !== place.instance) {
      const { regency, instance } = place;
      throw violation(replica, `proposes, for instance ${instance} in regency ${regency}, a batch of another instance`);
    }
    this.#state(replica, said, "PROPOSE", place, this.#crypto.sha256(batch));
  }

  /** The PROPOSE of its batch's instance, and the only SYNC of its regency. */
  #sync(replica: ReplicaId, said: Said, { regency, batch }: MessageOf<"SYNC">): void {
    const instance = instanceOf(batch);
    if (instance === null) throw violation(replica, `sends a SYNC of regency ${regency} without a batch`);
    const digest = this.#crypto.sha256(batch);
    const known = said.statements.get(`SYNC ${regency}`);
    if (known !== undefined && known !== digest) throw violation(replica, `sends two SYNCs in regency ${regency}`);
    this.#state(replica, said, "PROPOSE", { regency, instance }, digest);
    said.statements.set(`SYNC ${regency}`, digest);
  }

  #state(replica: ReplicaId, said: Said, kind: "PROPOSE" | "WRITE" | "ACCEPT", place: Place, digest: Digest): void {
    const { regency, instance } = place;
    const name = `${kind} ${regency} ${instance}`;
    const known = said.statements.get(name);
    if (known === digest) return;
    if (known !== undefined) {
      throw violation(
        replica,
        `says ${kind} in regency ${regency}, instance ${instance}, for ${short(known)} and for ${short(digest)}`,
      );
    }
    if (regency < (this.#lost.has(replica) ? said.promised : said.stopped)) {
      throw violation(
        replica,
        `says ${kind} in regency ${regency}, instance ${instance}, after its STOPDATA for regency ${said.stopped}`,
      );
    }
    said.statements.set(name, digest);
  }

  #remember(said: Said, { regency, instance, digest }: Accepted): void {
    const known = said.accepted.get(regency);
    if (!known || instance > known.instance) said.accepted.set(regency, { regency, instance, digest });
  }

  #stopData(replica: ReplicaId, said: Said, { regency, record }: MessageOf<"STOPDATA">): void {
    said.stopped = Math.max(said.stopped, regency);
    for (const accepted of said.accepted.values()) {
      if (accepted.regency >= regency) continue;
      if (record && newer(record, accepted)) continue;
      if (record && !newer(accepted, record) && record.digest === accepted.digest) continue;
      const named = record ? `${short(record.digest)} of (${record.instance}, ${record.regency})` : "none";
      throw violation(
        replica,
        `hides in its STOPDATA for regency ${regency} that it accepted ${short(accepted.digest)} ` +
          `of (${accepted.instance}, ${accepted.regency}): it names ${named}`,
      );
    }
  }
}

function short(digest: Digest): string {
  return hex(digest).slice(0, 12);
}

function violation(replica: ReplicaId, what: string): Violation {
  return new Violation("votes", `replica ${replica} ${what}`);
}
