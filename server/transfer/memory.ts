/**
 * What a replica that fetches a state still knows of the others' votes (docs/protocol.md section 4, "Lost journal"): it casts
 * none itself meanwhile, but those that start must not have to wait for it. Whoever lost its own journal knows nothing.
 */
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { Storage } from "../../storage/contract.ts";
import { regenciesIn } from "../consensus/restart.ts";
import { isNewer } from "../consensus/selection.ts";
import { acceptedIn } from "../recover.ts";

export type Memory = (asker: ReplicaId) => MessageOf<"OFFER">;

/** Null: nothing is known. @throws QuorateError STORAGE_DAMAGED */
export async function memoryOf(options: {
  crypto: Crypto;
  cluster: Cluster;
  storage: Storage;
}): Promise<Memory | null> {
  const { crypto, cluster, storage } = options;
  const { summary } = storage.journal;
  if (summary.forgotten) return null;
  const { view } = cluster;
  const { keptCertificate, newestAccepted } = await acceptedIn({ crypto, view, storage });
  const accepted = newestAccepted?.certificate ?? null;
  const newest = keptCertificate && isNewer(keptCertificate, accepted) ? keptCertificate : accepted;
  const { regency, wanted } = regenciesIn(view.id, summary.regency);
  const nothing = { logFirst: 0, logBytes: 0, checkpoints: [], roots: [] };
  return (asker) => {
    const vote = newest?.votes.find(({ replica }) => replica === asker);
    const yourWrite = newest && vote ? { ...newest, signature: vote.signature } : null;
    const decided = storage.state.applied.instance;
    return { type: "OFFER", view: view.id, regency, wanted, decided, newest, yourWrite, ...nothing };
  };
}
