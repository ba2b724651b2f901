/** Both stages of the intake against one suite, and what only threads can do: die. */
import { expect, test } from "vitest";
import type { Digest } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { INTAKE_REQUESTS_PER_CLIENT_MAX, VERIFYING_MAX, WAITING_PER_CLIENT_MAX } from "../../../protocol/limits.ts";
import { inThreadStage } from "../../../server/intake-stage/in-thread.ts";
import { workerStage } from "../../../server/intake-stage/worker-stage.ts";
import { threadPoolVerifier } from "../../../server/verifier.ts";
import { identityOf } from "./fixture.ts";
import { SELF, TestClient, TestConnection } from "./intake-requests.ts";
import { intakeStageContract } from "./intake-stage-contract.ts";

const { boxSecret } = identityOf(SELF);
intakeStageContract("on the event loop", inThreadStage, VERIFYING_MAX + WAITING_PER_CLIENT_MAX);
intakeStageContract("one worker thread", workerStage({ workers: 1, boxSecret }), INTAKE_REQUESTS_PER_CLIENT_MAX);
intakeStageContract("two worker threads", workerStage({ workers: 2, boxSecret }), INTAKE_REQUESTS_PER_CLIENT_MAX);

test("a worker that dies is reported: the replica has to halt", async () => {
  const failures: string[] = [];
  const failed = new Promise<void>((resolve) => {
    const stage = workerStage({ workers: 1, boxSecret })({
      crypto: nodeCrypto,
      // No cluster's id: deriving a key with it throws, in the worker.
      cluster: 7 as unknown as Digest,
      position: () => SELF,
      keysOf: () => null,
      verifier: threadPoolVerifier,
      guard: (work) => work(),
      judged: () => true,
      failed: (error) => {
        failures.push(error.message);
        void stage.close().then(resolve);
      },
    });
    const client = new TestClient("a client");
    const { envelope, request } = client.send({ signed: true, keys: true });
    stage.submit(new TestConnection(client.id), envelope, request);
  });
  await failed;
  expect(failures).toHaveLength(1);
  expect(failures[0]).toMatch(/^intake worker 0 died: /);
});
