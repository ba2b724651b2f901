/** What administrators order in a simulated world: changes of the view, signed and handed to every replica that runs. */
import { encodeSignedStatement, signStatement } from "../../protocol/administration.ts";
import { EMPTY } from "../../protocol/bytes.ts";
import { changedView } from "../../protocol/next-view.ts";
import { type Change, encodeReconfiguration, readyStatement } from "../../protocol/reconfiguration.ts";
import { decodeRequest, encodeRequest } from "../../protocol/request.ts";
import type { Member, ReplicaId, View } from "../../protocol/view.ts";
import { identityOf } from "./crypto.ts";
import { WALL_START_MS } from "./machine.ts";
import type { World } from "./world.ts";

const YEAR_MS = 365 * 24 * 3_600_000;

/** The member that the machine with this id would be. */
export function joiner(id: ReplicaId): Member {
  const { signKey, boxKey } = identityOf(`replica ${id}`);
  return { id, signKey, boxKey, host: `r${id}`, clientPort: 1, peerPort: 2, adminPort: 3 };
}

export class Administrator {
  readonly #world: World;
  #sequence = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** The newest view that a replica is in. */
  get view(): View {
    let newest = this.#world.cluster.view;
    for (const { host } of this.#world.machines) {
      const view = host?.views.chain.newest;
      if (view && view.id > newest.id) newest = view;
    }
    return newest;
  }

  adding(id: ReplicaId): Change {
    const member = joiner(id);
    return { type: "add", member, ready: this.#ready(member) };
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
    for (const { replica } of machines) replica?.input({ type: "request", request, envelope: EMPTY, replier: 0 });
  }

  #ready(member: Member) {
    const { crypto, cluster, decided } = this.#world;
    const instance = Math.max(0, decided - 1);
    const root = crypto.sha256(EMPTY);
    const statement = readyStatement(cluster.id, { view: this.view.digest, member, instance, root });
    return { instance, root, signature: crypto.signer(identityOf(`replica ${member.id}`).signSeed)(statement) };
  }
}
