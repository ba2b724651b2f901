/** Planted bugs at the intake, in execution, in the client table and at the client (docs/protocol.md sections 2, 3 and 8). */
import type { Mutation } from "./mutation.ts";

const CLIENT_TABLE = "server/service/client-table.ts";
const DRIVER = "server/driver.ts";
const INTAKE_ORDER = "server/intake-stage/order.ts";
const KV_SERVICE = "server/service/kv-service.ts";
const VERDICT = "client/verdict.ts";

/** Where the service forgets an answer, with a line that tells the two places apart. */
const FORGETS = {
  put: "    this.#answers.delete(key);\n    if (entry) {",
  delete: "    this.#answers.delete(key);\n    this.#state.delete(key);",
} as const;

export const SERVICE_BUGS: readonly Mutation[] = [
  {
    name: "request-executed-twice",
    rule: "3: a sequence executed before gets its cached reply",
    changes: [
      {
        file: CLIENT_TABLE,
        find: "if (earlier) return { execute: false, answer: this.#again(earlier, request, instance) };",
        replace: "",
      },
    ],
    suite: "world",
  },
  {
    name: "acked-request-executed",
    rule: "3: a sequence below the base is never executed",
    changes: [
      {
        file: CLIENT_TABLE,
        find: 'if (request.sequence < session.base) return this.#final("ACKED", instance);',
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "cancelled-request-executed",
    rule: "3: a sequence cancelled by RESOLVE is never executed",
    changes: [
      {
        file: CLIENT_TABLE,
        find: '    this.#store.add(newExecuted(session, { ...fields, instance, index }));\n    return { type: "cancelled" };',
        replace: '    return { type: "cancelled" };',
      },
    ],
    suite: "world",
  },
  ...(["put", "delete"] as const).map(
    (write): Mutation => ({
      name: `answer-kept-after-a-${write}`,
      rule: "6: an answer that is kept is forgotten by whatever writes its key",
      changes: [
        {
          file: KV_SERVICE,
          find: FORGETS[write],
          replace: FORGETS[write].replace("    this.#answers.delete(key);\n", ""),
        },
      ],
      suite: "unit",
      tests: ["test/unit/service/kv-service.test.ts"],
    }),
  ),
  {
    name: "read-by-weak-quorum",
    rule: "3: an unordered read needs Q equal results",
    changes: [
      {
        file: VERDICT,
        find: 'if (reply.status === "OK" && votes.count("OK", reply.resultDigest) >= view.quorum) {',
        replace: 'if (reply.status === "OK" && votes.count("OK", reply.resultDigest) >= view.weakQuorum) {',
      },
    ],
    suite: "targeted",
  },
  {
    name: "write-on-one-reply",
    rule: "3: an ordered request ends on Q equal results",
    changes: [
      {
        file: VERDICT,
        find: "return votes.count(status, reply.resultDigest) >= view.quorum ? resultOf(judge, reply) : WAIT;",
        replace: "return votes.count(status, reply.resultDigest) >= 1 ? resultOf(judge, reply) : WAIT;",
      },
    ],
    suite: "world",
  },
  {
    name: "reads-right-after-start",
    rule: "3: after a start no read is answered before every journaled instance is executed",
    changes: [
      {
        file: DRIVER,
        find: "this.executedInstance >= this.#readsFrom && this.#core.current && !this.#core.ending",
        replace: "true",
      },
    ],
    suite: "world",
  },
  {
    name: "refused-request-proposed",
    rule: "4.2: what a replica's request verifier refuses does not get into its queue from its client",
    changes: [
      {
        file: "server/intake.ts",
        find: "const refusal = this.#port.refusal(request);",
        replace: "const refusal: string | null = null;",
      },
    ],
    suite: "unit",
    tests: ["test/integration/library.test.ts"],
  },
  {
    name: "refused-request-approved",
    rule: "4.2: a proposed request that the request verifier refuses is not proven here",
    changes: [
      {
        file: "server/request-hooks.ts",
        find: 'return verdict !== "unproven" && this.refusal(request) !== null ? "unproven" : verdict;',
        replace: "return verdict;",
      },
    ],
    suite: "unit",
    tests: ["test/integration/library.test.ts"],
  },
  {
    name: "snapshot-without-its-end",
    rule: "6: a service's state in memory is installed whole or not at all",
    changes: [
      {
        file: "server/service/snapshotted.ts",
        find: "if (this.#length === 0) return;",
        replace: "if (this.#length >= 0) return;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/service/hooks.test.ts"],
  },
  {
    name: "forged-signature-admitted",
    rule: "2: a request counts only with its client's MAC or signature",
    changes: [
      {
        file: "server/intake.ts",
        find: '        return reject("punish", "REQUEST_SIGNATURE");',
        replace: "        this.#admit(connection, request, envelope, envelopeBytes);\n        return null;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/intake.test.ts"],
  },
  {
    name: "outcomes-out-of-order",
    rule: "8: requests of one connection are judged in their order",
    changes: [
      {
        file: INTAKE_ORDER,
        find: "let head: Place | null = line.head;",
        replace: "let head: Place | null = place;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/turns.test.ts"],
  },
  {
    name: "judged-after-the-end",
    rule: "8: what waits of a connection that was ended is let go",
    changes: [{ file: INTAKE_ORDER, find: "        this.#letGo(connection, next);\n        return;", replace: "" }],
    suite: "unit",
    tests: ["test/unit/server/turns.test.ts"],
  },
  {
    name: "no-bound-per-client-in-intake",
    rule: "8: what waits to be judged is bounded per client",
    changes: [
      {
        file: INTAKE_ORDER,
        find: "return load.requests < INTAKE_REQUESTS_PER_CLIENT_MAX && load.bytes + bytes <= INTAKE_BYTES_PER_CLIENT_MAX;",
        replace: "return load.requests < INTAKE_REQUESTS_MAX && load.bytes + bytes <= INTAKE_BYTES_PER_CLIENT_MAX;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/turns.test.ts"],
  },
];
