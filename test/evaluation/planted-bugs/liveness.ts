/** Planted bugs that lose nothing but progress (docs/protocol.md section 5, "Timer", and section 4, repair). */
import type { Mutation } from "./mutation.ts";

const ABSTENTION = "server/consensus/abstention.ts";
const CORE = "server/core.ts";
const DRIVER = "server/driver.ts";
const LAST_BATCH = "server/consensus/last-batch.ts";
const ORDERING = "server/consensus/ordering.ts";
const PATIENCE = "server/consensus/patience.ts";
const SYNCHRONIZATION = "server/consensus/synchronization.ts";

export const LIVENESS_BUGS: readonly Mutation[] = [
  {
    name: "stop-sent-once",
    rule: "5: a STOP is repeated until its regency is installed, also on reconnect",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (this.#wanted > this.#regency.number && nowUs - this.#stopSentUs >= timeoutUs) this.#sendStop();",
        replace: "",
      },
      { file: SYNCHRONIZATION, find: "if (this.#wanted > this.#regency.number) this.#sendStop(to);", replace: "" },
    ],
    suite: "core",
  },
  {
    name: "silent-leader-waited-for",
    rule: "5, timer: T that has doubled is not for a leader that is gone",
    changes: [
      { file: PATIENCE, find: "return silent ? this.#baseUs : this.timeoutUs;", replace: "return this.timeoutUs;" },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/suspicion.test.ts"],
  },
  {
    name: "resigned-leader-stays",
    rule: "5: a STOP of the leader is joined, also one that it said before its turn came",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if ((news || idle) && this.#ordering.acts(from))",
        replace: "if (news && this.#ordering.acts(from))",
      },
    ],
    suite: "unit",
    tests: ["test/unit/consensus/leaders-in-turn.test.ts"],
  },
  {
    name: "transfer-again-at-once",
    rule: "6: where no checkpoint was to be had, the log is out of reach for a while before one is asked for again",
    changes: [
      {
        file: "server/recovery/catch-up.ts",
        find: " && nowUs - this.#unreachableSinceUs >= this.#port.outOfReachUs",
        replace: "",
      },
    ],
    suite: "unit",
    tests: ["test/unit/recovery/catch-up.test.ts"],
  },
  {
    name: "own-silence-counts",
    rule: "5, timer: a leader, which nobody tells of itself, has T as it is now in its own eyes",
    changes: [{ file: PATIENCE, find: "replica !== this.#self && ", replace: "" }],
    suite: "unit",
    tests: ["test/unit/consensus/patience.test.ts"],
  },
  {
    name: "installed-batch-not-fetched",
    rule: "5: a synchronizer whose state came with a checkpoint fetches the batch it never had",
    changes: [{ file: CORE, find: "if (this.#ordering.chain.onHistory(message)) this", replace: "if (false) this" }],
    suite: "unit",
    tests: ["test/unit/consensus/installed-synchronizer.test.ts"],
  },
  {
    name: "installed-batch-believed",
    rule: "5: that batch and the digest below it hash to the decided one",
    changes: [{ file: LAST_BATCH, find: " || candidate.digest !== digest) return false;", replace: ") return false;" }],
    suite: "unit",
    tests: ["test/unit/consensus/installed-synchronizer.test.ts"],
  },
  {
    name: "second-stop-asks-again",
    rule: "4, clean stop: the core is stopped once, however many reasons to end there are",
    changes: [{ file: DRIVER, find: "this.#coreStopped ??= new", replace: "this.#coreStopped = new" }],
    suite: "unit",
    tests: ["test/unit/simulation/world.test.ts"],
  },
  {
    name: "sync-not-resent",
    rule: "4.7: on reconnect the messages of the synchronization phase are sent again",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (this.#ownSync) this.#context.send(to, this.#ownSync);\n    else if",
        replace: "if",
      },
      {
        file: SYNCHRONIZATION,
        find: "      this.#repeatSync(from, this.#ownSync);\n",
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "votes-not-resent",
    rule: "4.7: on reconnect the messages of the running instance are sent again",
    changes: [
      { file: ORDERING, find: "if (ownWrite) this.#context.send(to, ownWrite);", replace: "" },
      { file: ORDERING, find: "if (ownAccept) this.#context.send(to, ownAccept);", replace: "" },
    ],
    suite: "targeted",
  },
  {
    name: "patience-never-grows",
    rule: "5: T doubles with every regency that ends without a decision",
    changes: [
      {
        file: PATIENCE,
        find: "if (!this.#decidedInRegency && this.#doublings < DOUBLINGS_MAX) this.#doublings++;",
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "requests-of-lost-regency-forgotten",
    rule: "5: what a lost regency proposed and did not decide waits again",
    changes: [{ file: ORDERING, find: "this.#queue.proposalsDropped();", replace: "" }],
    suite: "targeted",
  },
  {
    name: "decided-value-not-voted-again",
    rule: "5: who has decided the instance of a SYNC votes again for the same batch",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (candidate) this.#ordering.voteOnSelected(at.instance, candidate);",
        replace: "",
      },
    ],
    suite: "core",
  },
  {
    name: "selection-never-given-up",
    rule: "5: a synchronizer goes on without those who report a record whose batch nobody serves",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "for (const data of reporting) gathering.excluded.add(data.replica);",
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "abstention-in-every-regency",
    rule: "4, restart rules: abstention ends with the regency in which votes may be forgotten",
    changes: [
      {
        file: ABSTENTION,
        find: "return running.ballot.regency === this.#startRegency && running.instance <= this.#until;",
        replace: "return this.#forgetful && running.instance <= this.#until;",
      },
    ],
    suite: "core",
  },
  {
    name: "no-empty-batch-for-abstaining-members",
    rule: "4, restart rules: while a member abstains, empty batches pass its instances",
    changes: [
      {
        file: CORE,
        find: "if (due && this.#catchUp.abstainingUntil > this.lastDecided) this.#ordering.wantEmptyBatch();",
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "requests-never-overdue",
    rule: "5: a request older than two timeouts makes a replica ask for another leader",
    changes: [
      {
        file: CORE,
        find: "if (reason) this.#suspect(reason);",
        replace: 'if (reason === "NO_SYNC") this.#suspect(reason);',
      },
    ],
    suite: "core",
  },
  {
    name: "missing-sync-tolerated",
    rule: "5: a regency without SYNC is left after a timeout",
    changes: [
      {
        file: CORE,
        find: "if (reason) this.#suspect(reason);",
        replace: 'if (reason && reason !== "NO_SYNC") this.#suspect(reason);',
      },
    ],
    suite: "core",
  },
  {
    name: "requests-not-forwarded",
    rule: "5: at its first timeout a request is forwarded to all",
    changes: [
      {
        file: "server/consensus/forwarding.ts",
        find: "of this.#queue.overdue(nowUs, forwardAfterUs, PER_TICK_MAX)) {",
        replace: "of this.#queue.overdue(nowUs, forwardAfterUs, 0)) {",
      },
    ],
    suite: "targeted",
  },
];
