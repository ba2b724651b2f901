/** Planted bugs in how leaders take turns (docs/protocol.md section 5, "Leaders in turn"). */
import type { Mutation } from "./mutation.ts";

const BATCHING = "server/consensus/batching.ts";
const CORE = "server/core.ts";
const FORWARDING = "server/consensus/forwarding.ts";
const ORDERING = "server/consensus/ordering.ts";
const LATENESS = "server/consensus/lateness.ts";
const RECORD = "server/consensus/leader-record.ts";
const SUSPICION = "server/consensus/suspicion.ts";

const RECORD_TEST = "test/unit/consensus/leader-record.test.ts";
const SUSPICION_TEST = "test/unit/consensus/suspicion.test.ts";
const TURNS_TEST = "test/unit/consensus/leaders-in-turn.test.ts";

function unit(
  file: string,
  rule: { name: string; rule: string; find: string; replace: string; test: string },
): Mutation {
  const { name, find, replace, test } = rule;
  return { name, rule: rule.rule, changes: [{ file, find, replace }], suite: "unit", tests: [test] };
}

export const TURN_BUGS: readonly Mutation[] = [
  {
    name: "leader-by-its-own-height",
    rule: "1: the leader is a function of the instance, the same for all; the next one takes over with the decision",
    changes: [
      {
        file: "protocol/view.ts",
        find: "const shift = view.rotation > 0 ? Math.floor(instance / view.rotation) : 0;",
        replace: "const shift = view.rotation > 0 ? Math.floor((instance - 1) / view.rotation) : 0;",
      },
    ],
    suite: "scenario",
  },
  {
    name: "synchronizer-taken-for-leader",
    rule: "5: while its SYNC is missing a regency is its synchronizer's to act in, whoever leads then",
    changes: [
      {
        file: ORDERING,
        find: "return synced === null ? synchronizerOf(this.#context.view, number) : this.leader;",
        replace: "return synced === null ? this.leader : synchronizerOf(this.#context.view, number);",
      },
    ],
    suite: "scenario",
  },
  {
    name: "restarted-leader-stays-in-its-turn",
    rule: "5: who restarts in its own turn and may have proposed and forgotten asks for the next regency",
    changes: [{ file: CORE, find: "if (this.#ordering.obstructs) this.#synchronization.leaveRegency();", replace: "" }],
    suite: "scenario",
  },
  {
    name: "regency-told-before-it-is-on-disk",
    rule: "5: a STATUS names a regency that is on disk",
    changes: [{ file: CORE, find: "regency: this.#regency.durable,", replace: "regency: this.#regency.number," }],
    suite: "unit",
    tests: ["test/unit/consensus/recollection.test.ts"],
  },
  {
    name: "lost-leader-waited-for",
    rule: "4: whoever lost its journal resigns when its turn as leader comes",
    changes: [
      {
        file: "server/consensus/abstention.ts",
        find: "return recollection.heard && running.instance >= until - 1 && this.silent(running);",
        replace: "return false && until > 0 && recollection.heard;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/recollection.test.ts"],
  },
  {
    name: "next-leader-may-not-resign",
    rule: "5: a STOP of the leader of the next instance is joined like that of this one",
    changes: [
      {
        file: ORDERING,
        find: "return replica === this.acting || replica === next;",
        replace: "return replica === this.acting || replica < 0 * next;",
      },
    ],
    suite: "scenario",
  },
  {
    name: "drained-leader-keeps-its-turn",
    rule: "5: who drains for a clean stop hands over when its turn begins",
    changes: [{ file: CORE, find: "if (this.#draining) this.#resign();", replace: "" }],
    suite: "scenario",
  },
  {
    name: "dead-leader-has-all-patience",
    rule: "5: who failed last is waited for an eighth of a timeout in its next turn",
    changes: [{ file: RECORD, find: "    this.#failed.set(leader, 0);\n", replace: "" }],
    suite: "scenario",
  },
  {
    name: "unsigned-request-tolerated",
    rule: "5: where requests are signed a proposal with an unsigned one is suspected at once",
    changes: [
      {
        file: ORDERING,
        find: 'this.#context.view.faultModel === "malicious" && lacksSignature(ballot.proposal)',
        replace: "this.#context.nowUs < 0 && lacksSignature(ballot.proposal)",
      },
    ],
    suite: "scenario",
  },
  unit(FORWARDING, {
    name: "unsigned-request-taken-on-the-word-of-others",
    rule: "5: where requests are signed none is taken without a signature, whoever forwards it",
    find: 'return this.#context.view.faultModel === "plain" || isSigned(envelope);',
    replace: "return isSigned(envelope) || envelope.length > 0;",
    test: TURNS_TEST,
  }),
  unit(BATCHING, {
    name: "old-wish-for-an-empty-batch",
    rule: "4: a wish for an empty batch is met when somebody else's batch has passed an instance",
    find: "if (this.#proposedUs === 0) this.#emptyWanted = false;",
    replace: "",
    test: TURNS_TEST,
  }),
  unit(SUSPICION, {
    name: "blamed-for-the-leader-before",
    rule: "5: ages count from when the turn began",
    find: "const sinceUs = Math.max(regencySinceUs, this.#leaderSinceUs);",
    replace: "const sinceUs = regencySinceUs;",
    test: SUSPICION_TEST,
  }),
  unit(SUSPICION, {
    name: "turn-postpones-the-missing-sync",
    rule: "5: the SYNC of a regency is due from when that was installed",
    find: 'return nowUs - regencySinceUs >= patienceUs ? "NO_SYNC" : null;',
    replace: 'return nowUs - sinceUs >= patienceUs ? "NO_SYNC" : null;',
    test: SUSPICION_TEST,
  }),
  unit(SUSPICION, {
    name: "client-left-out",
    rule: "5: a leader that serves others while a client waits for T/2 is suspected",
    find: 'if (this.#neglects(waiting, older)) return "CLIENT_NEGLECTED";',
    replace: "",
    test: SUSPICION_TEST,
  }),
  unit(SUSPICION, {
    name: "served-before-the-client-waited",
    rule: "5: only instances after the client began to wait show that it is left out",
    find: "this.#servedUs.length < SERVED_OTHERS || first < neglectedSinceUs",
    replace: "this.#servedUs.length < SERVED_OTHERS || first < 0",
    test: SUSPICION_TEST,
  }),
  unit(SUSPICION, {
    name: "served-by-the-leader-before",
    rule: "5: what the leader before served says nothing about this one",
    find: "    this.#leaderSinceUs = nowUs;\n    this.#servedUs = [];",
    replace: "    this.#leaderSinceUs = nowUs;",
    test: SUSPICION_TEST,
  }),
  unit(LATENESS, {
    name: "served-client-still-waits",
    rule: "5: a client waits since it was served last",
    find: "const waitingUs = Math.max(this.dueUs(entry), queue.servedUs);",
    replace: "const waitingUs = this.dueUs(entry);",
    test: "test/unit/consensus/request-queue.test.ts",
  }),
  unit(LATENESS, {
    name: "neglected-behind-its-own-requests",
    rule: "5: only the oldest request of a client is next",
    find: "if (queue?.oldest !== entry) continue;",
    replace: "if (!queue) continue;",
    test: "test/unit/consensus/request-queue.test.ts",
  }),
  unit(RECORD, {
    name: "lateness-forgotten",
    rule: "5: what a leader is late adds up",
    find: "Math.max(0, (this.#lateUs.get(leader) ?? 0) + tookUs - allowedUs)",
    replace: "Math.max(0, tookUs - allowedUs)",
    test: RECORD_TEST,
  }),
  unit(RECORD, {
    name: "haste-saved-up",
    rule: "5: quick instances pay back, but save nothing up for later delays",
    find: "Math.max(0, (this.#lateUs.get(leader) ?? 0) + tookUs - allowedUs)",
    replace: "(this.#lateUs.get(leader) ?? 0) + tookUs - allowedUs",
    test: RECORD_TEST,
  }),
  unit(RECORD, {
    name: "own-pace-sets-the-measure",
    rule: "5: a leader is compared with what the others sustain",
    find: "other !== leader && times.length >= WINDOW",
    replace: "leader >= 0 && other >= 0 && times.length >= WINDOW",
    test: RECORD_TEST,
  }),
  unit(RECORD, {
    name: "probation-for-everybody",
    rule: "5: on probation are at most f members",
    find: "if (this.#failed.size <= this.#f) break;",
    replace: "if (this.#failed.size > this.#f) break;",
    test: RECORD_TEST,
  }),
  unit(RECORD, {
    name: "probation-for-life",
    rule: "5: probation ends when the member has led for a whole turn, of 100 instances at least",
    find: "if (since + 1 >= this.#probationInstances) this.#failed.delete(leader);\n    else this",
    replace: "this",
    test: RECORD_TEST,
  }),
];
