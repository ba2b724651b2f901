/** Planted bugs in bounds and fairness (docs/protocol.md section 8). */
import type { Mutation } from "./mutation.ts";

const ADMISSION = "server/consensus/admission.ts";
const LATENESS = "server/consensus/lateness.ts";
const QUEUE = "server/consensus/request-queue.ts";
const SESSIONS = "server/network/client-session.ts";
const INTAKE = "server/intake.ts";
const STAGE = "server/intake-stage/in-thread.ts";
const FLOODS = "server/network/flood-guard.ts";
const DEBTS = "server/consensus/debts.ts";
const DEBT_TESTS = ["test/unit/consensus/debts.test.ts"];
const QUEUE_TESTS = ["test/unit/consensus/request-queue.test.ts", "test/unit/consensus/admission.test.ts"];
const MODEL_TESTS = ["test/unit/consensus/overload.test.ts"];
const GATEWAY_TESTS = ["test/unit/network/gateway.test.ts"];
const FLOOD_TESTS = ["test/unit/network/flood-guard.test.ts"];
const INTAKE_TESTS = ["test/unit/server/intake-load.test.ts"];

export const LOAD_BUGS: readonly Mutation[] = [
  {
    name: "queue-without-share",
    rule: "8: a client beyond its share is let in only while others leave room",
    changes: [
      {
        file: ADMISSION,
        find: "return cost + wanted <= share || total + wanted <= capacity;",
        replace: "return cost >= 0 || share > 0;",
      },
    ],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "queue-without-pace",
    rule: "8: what waits is bounded by the time that it takes",
    changes: [
      {
        file: ADMISSION,
        find: "return Math.max(QUEUE_COST_MIN, us * this.#pace);",
        replace: "return QUEUE_COST_START;",
      },
    ],
    suite: "unit",
    tests: [...MODEL_TESTS, ...QUEUE_TESTS],
  },
  {
    name: "queue-at-the-best-pace",
    rule: "8: what waits is bounded by the pace of late, not by the best there was",
    changes: [
      {
        file: ADMISSION,
        find: "return this.#us === 0 ? 0 : this.#cost / this.#us;",
        replace: "return this.#us === 0 ? 0 : Math.max(this.#fastest, this.#cost / this.#us);",
      },
    ],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "replies-of-a-batch-in-no-order",
    rule: "3: replies of one connection leave in the order of the batch",
    changes: [
      {
        file: INTAKE,
        find: "if (line) line.push(reply);",
        replace: "if (line) line.unshift(reply);",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/intake.test.ts"],
  },
  {
    name: "flood-never-cut-off",
    rule: "8: a client that goes on while it is turned away is cut off",
    changes: [{ file: FLOODS, find: "else this.#bar(client, nowMs);", replace: "" }],
    suite: "unit",
    tests: FLOOD_TESTS,
  },
  {
    name: "flood-back-at-once",
    rule: "8: who was cut off for flooding stays away for a while",
    changes: [
      {
        file: FLOODS,
        find: "return nowMs < (this.#offences.get(client)?.untilMs ?? Number.NEGATIVE_INFINITY);",
        replace: "return nowMs < 0 && this.#offences.has(client);",
      },
    ],
    suite: "unit",
    tests: FLOOD_TESTS,
  },
  {
    name: "burst-taken-for-a-flood",
    rule: "8: who pauses when it is turned away is never cut off",
    changes: [{ file: FLOODS, find: "const STRIKES = 4;", replace: "const STRIKES = 1;" }],
    suite: "unit",
    tests: FLOOD_TESTS,
  },
  {
    name: "all-taken-for-floods",
    rule: "8: where all want more than there is nobody is cut off, however little is served",
    changes: [
      {
        file: FLOODS,
        find: "Math.max(served / traffic.size, typical)",
        replace: "Math.min(served / traffic.size, typical)",
      },
    ],
    suite: "unit",
    tests: FLOOD_TESTS,
  },
  {
    name: "shed-without-lot",
    rule: "8: replicas turn away the same requests",
    changes: [{ file: ADMISSION, find: "if (lot < shed) return false;", replace: "" }],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "batch-of-one-client",
    rule: "8: a batch holds no more of one client than others want, and a little",
    changes: [
      {
        file: QUEUE,
        find: "return Math.max(lowerMedian([...wants.values()]) ?? 0, this.#admission.extra(wants.size));",
        replace: "return Number.POSITIVE_INFINITY;",
      },
    ],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "turns-without-end",
    rule: "8: who had its turn goes last",
    changes: [
      {
        file: "server/consensus/turns.ts",
        find: "return open.slice(0, served > 0 ? at + 1 : at);",
        replace: "return [];",
      },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/turns.test.ts"],
  },
  {
    name: "large-requests-for-free",
    rule: "8: shares are of cost, not of requests",
    changes: [
      {
        file: "server/consensus/turns.ts",
        find: "item !== undefined && costOf(item) <= lane.credit;",
        replace: "item !== undefined && lane.credit > 0;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/turns.test.ts"],
  },
  {
    name: "resolve-without-room",
    rule: "8: RESOLVE has a room that requests cannot take",
    changes: [
      {
        file: INTAKE,
        find: "lot }, sourceOf(kind)",
        replace: 'lot }, "client"',
      },
    ],
    suite: "unit",
    tests: INTAKE_TESTS,
  },
  {
    name: "forwarded-fill-everything",
    rule: "8: what replicas forward of one client is bounded",
    changes: [{ file: QUEUE, find: "own.bytes + wanted.bytes <= most.bytesEach;", replace: "own.bytes >= 0;" }],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "turned-away-requests-forwarded",
    rule: "8: what the leader turned away and nobody asks for again is not forwarded",
    changes: [
      {
        file: QUEUE,
        find: 'crowded && entry.state === "waiting" && entry.source === "client" && !entry.asked',
        replace: "crowded && entry.voices.size < 0",
      },
    ],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "backlog-blames-the-leader",
    rule: "8: a request is due when its client's turn would have come",
    changes: [
      {
        file: LATENESS,
        find: "this.#served - passedOver >= turn ? dueUs : Math.min",
        replace: "turn >= 0 ? dueUs : Math.min",
      },
    ],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "patience-renewed-by-empty-batches",
    rule: "8: only what is served prolongs patience",
    changes: [{ file: LATENESS, find: "if (cost === 0) return;", replace: "if (cost < 0) return;" }],
    suite: "unit",
    tests: QUEUE_TESTS,
  },
  {
    name: "busy-for-everybody",
    rule: "8: BUSY beyond the allowance costs nothing",
    changes: [
      {
        file: INTAKE,
        find: "if (!this.#allowance.takes(client, this.#port.clock.nowUs())) {",
        replace: "if (this.#port.clock.nowUs() < 0) {",
      },
    ],
    suite: "unit",
    tests: INTAKE_TESTS,
  },
  {
    name: "reads-without-turns",
    rule: "8: reads beyond a turn's worth wait for their client's turn",
    changes: [
      {
        file: INTAKE,
        find: "if (this.#reads.size === 0 && this.#readsLeft > 0) {",
        replace: "if (this.#reads.size >= 0) {",
      },
    ],
    suite: "unit",
    tests: INTAKE_TESTS,
  },
  {
    name: "results-for-nothing",
    rule: "8: who was served large results waits until all would have had as much",
    changes: [{ file: QUEUE, find: "this.#debts.executed(batch, nowUs);", replace: "" }],
    suite: "unit",
    tests: [...MODEL_TESTS, ...DEBT_TESTS],
  },
  {
    name: "debts-by-own-time",
    rule: "8: how long a debtor waits follows from what was executed, not from when",
    changes: [
      {
        file: DEBTS,
        find: "Math.min(before.paidMs - timestampMs, (before.paidUs - nowUs) / 1_000)",
        replace: "(before.paidUs - nowUs) / 1_000",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "debts-by-batch-time-alone",
    rule: "8: what was waited for is not waited for again, though batch time stands still",
    changes: [
      {
        file: DEBTS,
        find: "Math.min(before.paidMs - timestampMs, (before.paidUs - nowUs) / 1_000)",
        replace: "before.paidMs - timestampMs",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "repeated-requests-are-charged",
    rule: "8: a leader makes nobody owe by ordering again what was executed",
    changes: [
      {
        file: DEBTS,
        find: 'if (instance !== executed || request.kind !== "ordered") continue;',
        replace: "if (executed < 0 || instance < 0) continue;",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "debtors-hide-others",
    rule: "8: what waits of a client that owes hides nobody else's requests",
    changes: [
      {
        file: LATENESS,
        find: "if (!queue?.debtor || queue.oldest === entry) left--;",
        replace: "if (queue || left > 0) left--;",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "debtors-blame-the-leader",
    rule: "8: a request of a client that owes is not due before it has paid",
    changes: [
      {
        file: LATENESS,
        find: "return Math.max(dueUs, turnUs, queue.oldest === entry ? Math.min(paidUs, headUs + turnUsMax) : paidUs);",
        replace: "return Math.max(dueUs, paidUs > headUs ? turnUs : turnUs);",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "passed-over-by-those-before",
    rule: "8: what others are served while a client owes does not bring its turn nearer",
    changes: [{ file: LATENESS, find: "queue.passedOver += servedEach;", replace: "" }],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "oldest-of-a-debtor-left-out",
    rule: "8: the oldest request of a client that owes is due when that has paid, whatever else of it is served",
    changes: [
      {
        file: LATENESS,
        find: "Math.min(paidUs, headUs + turnUsMax)",
        replace: "(headUs > turnUsMax ? paidUs : paidUs)",
      },
    ],
    suite: "unit",
    tests: DEBT_TESTS,
  },
  {
    name: "execution-counts-as-lateness",
    rule: "5: a leader is not late for as long as the batch before took to execute",
    changes: [
      {
        file: "server/consensus/ordering.ts",
        find: "Math.max(waitingSinceUs, this.#running.sinceUs) + ballot.executionUs;",
        replace: "Math.max(waitingSinceUs, this.#running.sinceUs);",
      },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/ordering.test.ts"],
  },
  {
    name: "judged-reads-without-bound",
    rule: "8: reads that wait are bounded per client, those that were judged meanwhile included",
    changes: [
      {
        file: INTAKE,
        find: "if (!this.#reads.room(request.client, request.bytes.length)) {",
        replace: "if (request.bytes.length === 0) {",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/intake.test.ts"],
  },
  {
    name: "signatures-without-bound",
    rule: "8: client signatures do not fill the thread pool that verifies votes",
    changes: [{ file: STAGE, find: "() => this.#verifying < VERIFYING_MAX,", replace: "() => true," }],
    suite: "unit",
    tests: INTAKE_TESTS,
  },
  {
    name: "connections-of-one-client",
    rule: "8: one client's connections are bounded",
    changes: [
      {
        file: SESSIONS,
        find: "if (own && own.size >= connectionsPerClientMax) return false;",
        replace: "",
      },
    ],
    suite: "unit",
    tests: GATEWAY_TESTS,
  },
  {
    name: "slow-readers-together",
    rule: "8: what all clients together have not read is bounded",
    changes: [{ file: SESSIONS, find: 'slowest.fail("TOO_SLOW", "TOO_SLOW");', replace: "" }],
    suite: "unit",
    tests: GATEWAY_TESTS,
  },
];
