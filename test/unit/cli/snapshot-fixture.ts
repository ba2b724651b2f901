/** A small cluster that exists only as its history: certified log, checkpoints and roots by a real executor, real signatures. */
import { decodeBatch, encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { bytesOf, concat, type Digest, hex, latin1, utf8 } from "../../../protocol/bytes.ts";
import { type ClusterFile, clusterOf } from "../../../protocol/cluster.ts";
import { encodeCommand } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { type Identity, identityFrom } from "../../../protocol/identity.ts";
import {
  ChunkBuilder,
  encodeManifest,
  type ImageHeader,
  imageHeader,
  rootOf,
  rootStatement,
} from "../../../protocol/image.ts";
import { type Certificate, type MessageOf, writeStatement } from "../../../protocol/messages.ts";
import { encodeRequest } from "../../../protocol/request.ts";
import { Executor, foundingOf } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";
import { SERVICE_SPACE } from "../../../server/service/state.ts";
import type { SnapshotSource } from "../../../server/snapshot/access.ts";
import type { RootOfMember } from "../../../server/snapshot/file.ts";

export const LAST = 12;
const PUTS_PER_BATCH = 20;
/** Large enough that the state has several chunks. */
const VALUE_BYTES = 50_000;
const ALICE = nodeCrypto.sha256(utf8("alice"));

export const identities: readonly Identity[] = [0, 1, 2, 3].map((replica) =>
  identityFrom(bytesOf(nodeCrypto.sha256(utf8(`sign ${replica}`))), bytesOf(nodeCrypto.sha256(utf8(`box ${replica}`)))),
);

export const clusterFile: ClusterFile = {
  format: 1,
  clusterId: hex(nodeCrypto.sha256(utf8("a cluster"))),
  mode: "bft",
  f: 1,
  members: identities.map((identity, id) => ({
    id,
    host: "127.0.0.1",
    clientPort: 7_000 + 10 * id,
    peerPort: 7_001 + 10 * id,
    adminPort: 7_002 + 10 * id,
    signKey: hex(identity.signKey),
    boxKey: hex(identity.boxKey),
  })),
  administrators: ["ab".repeat(32)],
  clients: "open",
  signedRequests: false,
  maxClients: 100,
};
export const cluster = clusterOf(nodeCrypto, clusterFile);

export interface Checkpointed {
  readonly header: ImageHeader;
  readonly root: Digest;
  readonly manifest: Uint8Array;
  readonly chunks: readonly Uint8Array[];
}

interface Instance {
  readonly batch: Uint8Array;
  readonly batchDigest: Digest;
  readonly digest: Digest;
  readonly certificate: Certificate;
}

export class FakeHistory {
  readonly instances: Instance[] = [];
  /** The state after every instance, from 0 on. */
  readonly checkpoints: Checkpointed[] = [];
  readonly store = new Map<string, Uint8Array>();
  revision = 0;

  constructor() {
    const start = { instance: 0, digest: cluster.genesis, timestampMs: 0 };
    const executor = new Executor({
      crypto: nodeCrypto,
      ...foundingOf(cluster),
      stored: this.store,
      applied: start,
      service: (state) => new KvService(state),
    });
    this.checkpoints.push(this.#checkpoint(start));
    let previous = cluster.genesis;
    for (let instance = 1; instance <= LAST; instance++) {
      const batch = batchOf(instance);
      const batchDigest = nodeCrypto.sha256(batch);
      const digest = historyDigest(nodeCrypto, { cluster: cluster.id, instance, previous, batchDigest });
      executor.execute(decodeBatch(nodeCrypto, batch), digest);
      const group = executor.takeGroup();
      for (const [key, value] of group?.changes ?? []) {
        if (value) this.store.set(key, new Uint8Array(value));
        else this.store.delete(key);
      }
      executor.groupDurable();
      this.instances.push({ batch, batchDigest, digest, certificate: certificateOf(instance, digest) });
      this.checkpoints.push(this.#checkpoint(executor.applied));
      previous = digest;
    }
    this.revision = executor.revision;
  }

  /** In the place of a checkpoint, one of a cluster that runs another service. */
  becomeForeign(instance: number): void {
    const { digest, timestampMs } = this.checkpoint(instance).header;
    this.store.clear();
    this.store.set(`${SERVICE_SPACE}total`, utf8("5"));
    this.checkpoints[instance] = this.#checkpoint({ instance, digest, timestampMs });
  }

  #checkpoint(place: { instance: number; digest: Digest; timestampMs: number }): Checkpointed {
    const builder = new ChunkBuilder();
    const chunks: Uint8Array[] = [];
    const end = (): void => {
      const chunk = builder.take();
      if (chunk) chunks.push(new Uint8Array(chunk));
    };
    for (const [key, value] of [...this.store].sort(([a], [b]) => (a < b ? -1 : 1))) if (builder.add(key, value)) end();
    end();
    const summaries = chunks.map((chunk) => ({ digest: nodeCrypto.sha256(chunk), bytes: chunk.length }));
    const header = imageHeader(nodeCrypto, place, summaries);
    return { header, root: rootOf(nodeCrypto, cluster.view, header), manifest: encodeManifest(summaries), chunks };
  }

  at(instance: number): Instance {
    return this.instances[instance - 1] as Instance;
  }

  checkpoint(instance: number): Checkpointed {
    return this.checkpoints[instance] as Checkpointed;
  }

  rootBy(replica: number, instance: number, root = this.checkpoint(instance).root): RootOfMember {
    const statement = rootStatement(cluster.id, { view: 0, instance, root });
    const signature = nodeCrypto.signer((identities[replica] as Identity).signSeed)(statement);
    return { replica, instance, root, signature };
  }

  /** Instances `from` to `to`, proven by the certificate of the next one, or by their last when there is none. */
  history(from: number, to: number): MessageOf<"HISTORY"> {
    const batches = this.instances.slice(from - 1, to).map(({ batch }) => batch);
    const beyond = this.instances[to];
    const proof = beyond
      ? { links: [beyond.batchDigest], certificate: beyond.certificate }
      : { links: [], certificate: this.at(to).certificate };
    const previous = from === 1 ? cluster.genesis : this.at(from - 1).digest;
    return { type: "HISTORY", view: 0, regency: 0, from, previous, batches, proof };
  }

  /** What one replica offers: a checkpoint and the roots of its own. */
  source(replica: number, offered: { checkpoint: number; roots: readonly RootOfMember[] }): SnapshotSource {
    const place = { view: 0, regency: 0 };
    const known = (instance: number, root: Digest): Checkpointed | null =>
      offered.checkpoint === instance && this.checkpoint(instance).root === root ? this.checkpoint(instance) : null;
    return {
      offer: async () => ({
        type: "OFFER",
        ...place,
        wanted: 0,
        decided: LAST,
        newest: this.at(LAST).certificate,
        yourWrite: null,
        logFirst: replica === 3 ? 0 : 1,
        logBytes: 1_000,
        checkpoints: offered.checkpoint > 0 ? [this.checkpoint(offered.checkpoint).header] : [],
        roots: offered.roots.map(({ instance, root, signature }) => ({ instance, root, signature })),
      }),
      manifest: async ({ instance, root }) => {
        const found = known(instance, root);
        return found && { type: "MANIFEST", ...place, instance, root, manifest: found.manifest };
      },
      chunk: async ({ instance, root }, index) => {
        const chunk = known(instance, root)?.chunks[index];
        return chunk ? { type: "CHUNK", ...place, instance, root, index, chunk } : null;
      },
      // Two at a time, so that there are several segments.
      history: async ({ from, to }) => this.history(from, Math.min(to, from + 1)),
    };
  }
}

function batchOf(instance: number): Uint8Array {
  const commands = Array.from({ length: PUTS_PER_BATCH }, (_, index) => {
    const key = utf8(`key/${(instance * 7 + index * 13) % 97}`);
    const value = concat([utf8(`${instance}/${index}:`), new Uint8Array(VALUE_BYTES).fill(instance)]);
    return encodeCommand({ type: "put", key, value, ifRevision: null });
  });
  const request = encodeRequest({
    cluster: cluster.id,
    client: ALICE,
    session: 1_000,
    sequence: instance,
    ackedBelow: 0,
    kind: "ordered",
    deadlineMs: 0,
    commands,
  });
  return encodeBatch({ instance, timestampMs: 1_000 + instance, requests: [request] });
}

function certificateOf(instance: number, digest: Digest): Certificate {
  const statement = { view: 0, regency: 0, instance, digest };
  const votes = [0, 1, 2].map((replica) => ({
    replica,
    signature: nodeCrypto.signer((identities[replica] as Identity).signSeed)(writeStatement(cluster.id, statement)),
  }));
  return { ...statement, votes };
}

export function digestOf(text: string): Digest {
  return latin1(bytesOf(nodeCrypto.sha256(utf8(text))));
}
