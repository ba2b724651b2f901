/** Planted bugs in statements of administrators and in clients' rights (docs/protocol.md section 2, "Rights"). */
import type { Mutation } from "./mutation.ts";

const ADMINISTRATION = "server/service/administration.ts";
const EXECUTOR = "server/service/executor.ts";
const GRANTS = "server/service/grants.ts";
const KEY_RANGES = "protocol/key-ranges.ts";

export const RIGHTS_BUGS: readonly Mutation[] = [
  {
    name: "range-checked-at-its-start",
    rule: "2: a range needs the right to every key up to its end",
    changes: [
      {
        file: KEY_RANGES,
        find: "    at = end;\n    if (to !== null && at >= to) return true;",
        replace: "    at = end;\n    return true;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "key-covered-by-its-neighbour",
    rule: "2: a prefix covers no key beyond its end",
    changes: [{ file: KEY_RANGES, find: "    if (end <= at) continue;", replace: "" }],
    suite: "targeted",
  },
  {
    name: "write-needs-no-right",
    rule: "2: whoever may read a key may not therefore write it",
    changes: [
      {
        file: GRANTS,
        find: "writes.every((range) => covers(rights.write, range))",
        replace: "writes.every((range) => covers([...rights.read, ...rights.write].sort(), range))",
      },
    ],
    suite: "targeted",
  },
  {
    name: "revoked-client-goes-on",
    rule: "2: a revoked client has no rights",
    changes: [{ file: GRANTS, find: "    else this.#delete(client);", replace: "" }],
    suite: "targeted",
  },
  {
    name: "grants-last-for-ever",
    rule: "2: a grant gives nothing from its expiry on",
    changes: [{ file: GRANTS, find: "return expiresMs !== 0 && nowMs >= expiresMs;", replace: "return false;" }],
    suite: "targeted",
  },
  {
    name: "reads-beside-the-log-unchecked",
    rule: "2: unordered reads are judged like ordered ones",
    changes: [
      {
        file: EXECUTOR,
        find: "const result = this.#refusalFor(rights, command) ?? this.#service.query(command);",
        replace: "const result = this.#service.query(command);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "late-grant-undoes-a-revocation",
    rule: "2: no statement is executed after one with a higher number",
    changes: [
      {
        file: ADMINISTRATION,
        find: "return this.#digestOf(signed) === newest.digest ? newest.result : OVERTAKEN;",
        replace: "return this.#digestOf(signed) === newest.digest ? newest.result : null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "expired-statement-executed",
    rule: "2: a statement is refused after its time",
    changes: [{ file: ADMINISTRATION, find: "    if (notAfterMs < nowMs) {", replace: "    if (notAfterMs < 0) {" }],
    suite: "targeted",
  },
  {
    name: "statement-of-anybody",
    rule: "2: a statement needs the signatures of administrators",
    changes: [
      {
        file: ADMINISTRATION,
        find: "return checks.every(({ publicKey, statement, signature }) => crypto.verify(publicKey, statement, signature));",
        replace: "return checks.length > 0;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "withheld-answer-to-the-revoked",
    rule: "2: who lost his rights hears of what was executed only what the application lets go",
    changes: [
      {
        file: "server/intake.ts",
        find: "else if (this.#port.leaves(known)) this.reply(connection, known, EVERYBODY);",
        replace: "else this.reply(connection, known, EVERYBODY);",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/intake.test.ts"],
  },
];
