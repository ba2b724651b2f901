/**
 * A worker thread of the intake: examines batches of requests and verifies their signatures, here and not on the thread pool, which
 * so stays free for consensus. It keeps nothing but client keys. What it throws ends the replica.
 */
import { parentPort, workerData } from "node:worker_threads";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { assert, isRejection } from "../../protocol/errors.ts";
import { ClientKeyring } from "../client-keyring.ts";
import { type Answer, type Answered, decodeRaw, encodeAnswers, type Raw } from "./batches.ts";
import { type Examiner, examine } from "./examine.ts";
import type { WorkerData } from "./worker-stage.ts";

const port = parentPort;
assert(port, "this file runs as a worker thread");
const { cluster, boxSecret } = workerData as WorkerData;
const keyring = new ClientKeyring({ crypto: nodeCrypto, cluster, mine: { boxSecret } });

function answer(position: number, { keys, envelope, request }: Raw): Answer {
  const by: Examiner = {
    crypto: nodeCrypto,
    cluster,
    position,
    keysOf: (client, given) => keyring.keysOf(client, given ?? (keys.length > 0 ? keys : null)),
  };
  const examined = examine(by, envelope, request);
  if (isRejection(examined)) return { type: "malformed", code: examined.code };
  const { authentication } = examined;
  const { digest } = examined.request;
  if (typeof authentication === "string") return { type: authentication, digest };
  const { publicKey, statement, signature } = authentication;
  return { type: nodeCrypto.verify(publicKey, statement, signature) ? "authentic" : "forged", digest };
}

port.on("message", (buffers: ArrayBuffer[]) => {
  const answers = buffers.flatMap((buffer) => {
    const { position, requests } = decodeRaw(buffer);
    return requests.map((request) => answer(position, request));
  });
  const answered: Answered = { answers: encodeAnswers(answers), buffers };
  port.postMessage(answered, [answered.answers, ...buffers]);
});
