/**
 * Leaders order requests that were executed long ago, again and again, beside new ones: each takes effect once, also when its
 * client has acknowledged the reply since (docs/protocol.md section 3).
 */
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import { encodeCommand } from "../../../protocol/commands.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";
import { Executor } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";
import { Violation } from "../contract.ts";
import { CLIENT, CLUSTER, GENESIS } from "../core-replica.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { seeded } from "../random.ts";

const BATCHES = 20;
const REQUESTS_MAX = 4;

function put(sequence: number, ackedBelow: number): Request {
  const command = encodeCommand({ type: "put", key: utf8("key"), value: utf8(`${sequence}`), ifRevision: null });
  const fields = { cluster: CLUSTER, client: CLIENT, session: 1, sequence, ackedBelow, deadlineMs: 0 };
  return decodeRequest(fastCrypto, encodeRequest({ ...fields, kind: "ordered", commands: [command] }));
}

export function replayedRequests(seed: number): void {
  const random = seeded(seed);
  const executor = new Executor({
    crypto: fastCrypto,
    cluster: CLUSTER,
    clients: "open",
    administrators: { keys: [], threshold: 1 },
    maxClients: 10,
    stored: { get: () => undefined },
    applied: { instance: 0, digest: GENESIS, timestampMs: 0 },
    service: (state) => new KvService(state),
  });
  const issued: Request[] = [];
  let acked = 1;
  for (let instance = 1; instance <= BATCHES; instance++) {
    const requests: Request[] = [];
    for (let left = random.below(REQUESTS_MAX); left > 0; left--) {
      if (issued.length > 0 && random.chance(0.5)) requests.push(random.pick(issued));
      else {
        // Whatever was executed before this batch may be acknowledged in it.
        if (random.chance(0.5)) acked = Math.max(acked, 1 + random.below(issued.length + 1));
        const request = put(issued.length + 1, acked);
        issued.push(request);
        requests.push(request);
      }
    }
    const digest = fastCrypto.sha256(utf8(`batch ${instance}`)) as Digest;
    executor.execute({ instance, timestampMs: instance, requests }, digest);
    if (executor.revision !== issued.length) {
      const what = `${issued.length} requests took effect ${executor.revision} times after instance ${instance}`;
      throw new Violation("exactly-once", what);
    }
  }
}
