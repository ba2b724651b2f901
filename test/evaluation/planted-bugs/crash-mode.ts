/** Planted bugs in what crash mode does otherwise (docs/protocol.md section 4, "Crash mode"). */
import type { Mutation } from "./mutation.ts";

const ABSTENTION = "server/consensus/abstention.ts";
const CERTIFICATE = "protocol/certificate.ts";
const CONSENSUS_TEST = ["test/unit/consensus/crash-mode.test.ts"];
const HOST = "server/host.ts";
const ORDERING = "server/consensus/ordering.ts";
const PROPOSAL = "server/consensus/proposal.ts";
const RECOLLECTION = "server/consensus/recollection.ts";
const RECOVERY_TEST = ["test/unit/recovery/crash-mode.test.ts"];
const RESTART = "server/consensus/restart.ts";
const SELECTION = "server/consensus/selection.ts";
const TRANSFER = "server/recovery/state-transfer.ts";
const VIEW = "protocol/view.ts";
const VOTING = "server/consensus/voting.ts";

export const CRASH_MODE_BUGS: readonly Mutation[] = [
  {
    name: "crash-mode-waits-for-a-dead-log",
    rule: "6, crash mode: a checkpoint with log above it that nobody has any more is taken all the same",
    changes: [
      {
        file: TRANSFER,
        find: "else if (!needsRoots) this.#believe(attempt);",
        replace: "",
      },
    ],
    suite: "unit",
    tests: ["test/unit/recovery/crash-mode.test.ts"],
  },
  {
    name: "crash-mode-quorum-one-less",
    rule: "1: in cft mode Q = floor(n/2)+1",
    changes: [{ file: VIEW, find: "Math.floor(sizes.n / 2) + 1;", replace: "Math.max(1, Math.floor(sizes.n / 2));" }],
    suite: "targeted",
  },
  {
    name: "crash-mode-record-taken-for-decision",
    rule: "4, crash mode: a record without votes says accepted, one without certificate decided",
    changes: [
      {
        file: RESTART,
        find: "newest.certificate ? newest.instance - 1 : newest.instance",
        replace: "newest.certificate?.votes.length ? newest.instance - 1 : newest.instance",
      },
    ],
    suite: "targeted",
  },
  {
    name: "crash-mode-record-not-selected",
    rule: "5: in cft mode an accept record counts without votes",
    changes: [
      {
        file: SELECTION,
        find: "if (record && isNewer(record, newest)) newest = record;",
        replace: "if (record && record.votes.length > 0 && isNewer(record, newest)) newest = record;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "crash-mode-record-needs-votes",
    rule: "4, crash mode: no certificate needs votes",
    changes: [
      {
        file: CERTIFICATE,
        find: 'if (view.mode === "cft") return certificate.view === view.id && votes.length === 0 ? [] : null;',
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "proposed-where-it-may-have-proposed",
    rule: "4, restart rules: no PROPOSE where one may have left before a crash",
    changes: [{ file: ORDERING, find: "if (this.#abstention.covers(this.#running)) return;", replace: "" }],
    suite: "targeted",
  },
  {
    name: "crash-mode-followers-abstain",
    rule: "4, crash mode: whoever restarts votes at once, its ACCEPTs were journaled",
    changes: [
      {
        file: VOTING,
        find: "if (this.#port.silent(running) || this.#port.executionLags()) return;",
        replace: "if (this.#port.abstains(running) || this.#port.executionLags()) return;",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-waits-for-abstaining-members",
    rule: "4, crash mode: nobody asks for empty batches after a restart",
    changes: [{ file: ABSTENTION, find: 'over || this.#view.mode === "cft" ?', replace: "over ?" }],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-requests-questioned",
    rule: "4, crash mode: the leader vouches for the requests of its batch",
    changes: [
      {
        file: PROPOSAL,
        find: 'context.view.mode === "cft" ? [] : candidate.batch.requests',
        replace: "candidate.batch.requests",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-leader-vouches-for-its-clock",
    rule: "4, crash mode: a third member must agree with a time that is held",
    changes: [{ file: VOTING, find: "(ballot.accepts.has(leader) ? 1 : 0)", replace: "0" }],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-too-few-rememberers",
    rule: "4, crash mode: n-Q+1 others bound what a lost journal may have held",
    changes: [{ file: VIEW, find: '(mode === "bft" ? f : 1),', replace: '(mode === "bft" ? f : 0),' }],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-start-waits-for-all",
    rule: "4, crash mode: with its journal a replica waits for n-f-1 others and no more",
    changes: [
      {
        file: VIEW,
        find: "n - quorumOf({ n, f, mode }) + f : n - f - 1,",
        replace: "n - quorumOf({ n, f, mode }) + f : n - 1,",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-view-waits-for-all",
    rule: "7, crash mode: in its next view a replica waits for n-f-1 others and no more",
    changes: [{ file: HOST, find: "hear: view.consulted", replace: "hear: view.rememberers" }],
    suite: "unit",
    tests: ["test/unit/simulation/views.test.ts"],
  },
  {
    name: "crash-mode-lost-journal-heard-by-fewer",
    rule: "4, crash mode: a lost journal takes more answers than a start",
    changes: [
      {
        file: RECOLLECTION,
        find: "return this.#forgotten?.until === null ? this.#context.view.rememberers : this.#consulted;",
        replace: "return this.#consulted;",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-floor-of-the-lowest",
    rule: "4, crash mode: the floor of a lost journal is the highest regency that anybody wants",
    changes: [{ file: RECOLLECTION, find: "if (this.#crashOnly) return wanted.at(-1) ?? 0;", replace: "" }],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-accepts-not-remembered",
    rule: "4, crash mode: the newest ACCEPT of each other member is remembered",
    changes: [{ file: RECOLLECTION, find: '(this.#crashOnly ? "ACCEPT" : "WRITE")', replace: '"WRITE"' }],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-rollback-by-one-unseen",
    rule: "4, crash mode: an ACCEPT above the journal's end shows that the disk is older",
    changes: [
      {
        file: RECOLLECTION,
        find: "const ahead = this.#crashOnly || start.fresh ? 0 : 1;",
        replace: "const ahead = 1;",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-batch-asked-of-reporters-alone",
    rule: "5: in cft mode whoever decided it may hold the selected batch",
    changes: [
      {
        file: SELECTION,
        find: 'view.mode === "cft" ? view.members.map(({ id }) => id) : selection.votes',
        replace: "selection.votes",
      },
    ],
    suite: "unit",
    tests: CONSENSUS_TEST,
  },
  {
    name: "crash-mode-waits-for-witnesses",
    rule: "6: in cft mode the donor's word is enough",
    changes: [{ file: VIEW, find: 'rootWitnesses: mode === "bft" ? f : 0,', replace: "rootWitnesses: f," }],
    suite: "unit",
    tests: RECOVERY_TEST,
  },
  {
    name: "crash-mode-keeps-records-of-others",
    rule: "6: in cft mode the accept record of another member is not one's own",
    changes: [
      {
        file: TRANSFER,
        find: 'this.#options.view.mode === "cft" ? null : this.#offers.certificateAt(place.instance);',
        replace: "this.#offers.newest;",
      },
    ],
    suite: "unit",
    tests: RECOVERY_TEST,
  },
  {
    name: "crash-mode-log-in-a-file-believed",
    rule: "6: in cft mode no log in a snapshot file is proven",
    changes: [
      {
        file: "server/snapshot/history-proof.ts",
        find: ' || view.mode === "cft") return [];',
        replace: ") return [];",
      },
    ],
    suite: "unit",
    tests: RECOVERY_TEST,
  },
];
