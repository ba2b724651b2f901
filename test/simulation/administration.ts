/** What administrators order in a simulated world: changes of the view, signed and handed to every replica that runs. */
import { encodeSignedStatement, signStatement } from "../../protocol/administration.ts";
import { EMPTY } from "../../protocol/bytes.ts";
import { changedView } from "../../protocol/next-view.ts";
import { type Address, type Change, encodeReconfiguration, readyStatement } from "../../protocol/reconfiguration.ts";
import { decodeRequest, encodeRequest } from "../../protocol/request.ts";
import { type Member, memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import { identityOf, identityOfMember } from "./crypto.ts";
import { WALL_START_MS } from "./machine.ts";
import type { World } from "./world.ts";

const YEAR_MS = 365 * 24 * 3_600_000;

/** Where the machine with this id listens, or with another host name somewhere else. */
export function addressAt(host: string): Address {
  return { host, clientPort: 1, peerPort: 2, adminPort: 3 };
}

/** The member that the machine with this id would be. */
function joiner(id: ReplicaId): Member {
  const { signKey, boxKey } = identityOf(`replica ${id}`);
  return { id, signKey, boxKey, ...addressAt(`r${id}`) };
}

export class Administrator {
  readonly #world: World;
  #sequence = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** The newest view that a replica knows of. */
  get view(): View {
    return this.#world.view;
  }

  adding(id: ReplicaId): Change {
    const member = joiner(id);
    return { type: "add", member, ready: this.#ready(member) };
  }

  /** `generation`: the keys of no earlier one. */
  rotating(id: ReplicaId, generation: number): Change {
    const member = memberOf(this.view, id);
    if (!member) throw new Error(`${id} is no member`);
    const { signKey, boxKey } = identityOf(`replica ${id} key ${generation}`);
    return { type: "rotateKey", id, signKey, boxKey, ready: this.#ready({ ...member, signKey, boxKey }) };
  }

  replacing(id: ReplicaId, by: ReplicaId): Change {
    const member = joiner(by);
    return { type: "replace", id, member, ready: this.#ready(member) };
  }

  /** To every replica that runs, as if its client had sent it to each. */
  order(change: Change): void {
    const { crypto, cluster, machines, decided } = this.#world;
    const { view } = this;
    const made = changedView(crypto, view, { change, instance: decided + 1 });
    if ("refused" in made) throw new Error(`refused: ${made.refused}`);
    const { signKey, signSeed } = identityOf("administrator");
    const body = encodeReconfiguration({ expected: view.digest, resulting: made.view.digest, change });
    const statement = { type: "reconfigure", number: 1, notAfterMs: WALL_START_MS + YEAR_MS, body } as const;
    const signed = signStatement(cluster.id, statement, [{ signKey, sign: crypto.signer(signSeed) }]);
    const client = crypto.sha256(signKey);
    const numbers = { session: 1, sequence: ++this.#sequence, ackedBelow: 0, deadlineMs: 0 };
    const fields = { cluster: cluster.id, client, ...numbers, kind: "administer" } as const;
    const request = decodeRequest(crypto, encodeRequest({ ...fields, commands: [encodeSignedStatement(signed)] }));
    this.#world.issue(request);
    for (const { replica, paused } of machines)
      if (!paused) replica?.input({ type: "request", request, envelope: EMPTY, replier: 0 });
  }

  #ready(member: Member) {
    const { crypto, cluster, decided } = this.#world;
    const instance = Math.max(0, decided - 1);
    const root = crypto.sha256(EMPTY);
    const statement = readyStatement(cluster.id, { view: this.view.digest, member, instance, root });
    return { instance, root, signature: crypto.signer(identityOfMember(member).signSeed)(statement) };
  }
}
