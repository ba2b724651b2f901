/** Planted bugs in the restart rules, in catching up, and in what the driver waits for (docs/protocol.md sections 4 and 6). */
import type { Mutation } from "./mutation.ts";

const ABSTENTION = "server/consensus/abstention.ts";
const CATCH_UP = "server/recovery/catch-up.ts";
const ORDERING = "server/consensus/ordering.ts";
const RECOVER = "server/recover.ts";
const DRIVER = "server/driver.ts";
const SEGMENTS = "server/recovery/segments.ts";
const RESTART = "server/consensus/restart.ts";
const SYNCHRONIZATION = "server/consensus/synchronization.ts";

export const RESTART_BUGS: readonly Mutation[] = [
  {
    name: "rollback-forgotten-on-a-full-disk",
    rule: "4: that the journal is older than a vote shown is known to the process until it is written down",
    changes: [
      {
        file: "server/host.ts",
        find: "if (!this.#older || known?.until === null) return known;",
        replace: "return known;",
      },
    ],
    suite: "unit",
    tests: ["test/unit/simulation/run.test.ts"],
  },
  {
    name: "rollback-remembered-for-ever",
    rule: "4: what was forgotten and matters no more is not forgotten again when the disk is full",
    changes: [
      {
        file: "server/host.ts",
        find: "    this.#older = false;\n    this.#parts.logger.info({}",
        replace: "    this.#parts.logger.info({}",
      },
    ],
    suite: "unit",
    tests: ["test/unit/simulation/run.test.ts"],
  },
  {
    name: "no-abstention",
    rule: "4, restart rules: no WRITE where one may have left before a crash",
    changes: [
      {
        file: ABSTENTION,
        find: "return running.ballot.regency === this.#startRegency && running.instance <= this.#until;",
        replace: "return running.ballot.regency < 0;",
      },
    ],
    suite: "core",
  },
  {
    name: "abstention-one-short",
    rule: "4, restart rules: after a crash no WRITE up to i0+1",
    changes: [
      {
        file: RESTART,
        find: "abstainUntil: durable.cleanStop ? journaledUpTo : journaledUpTo + 1,",
        replace: "abstainUntil: journaledUpTo,",
      },
    ],
    suite: "core",
  },
  {
    name: "abstention-forgotten-at-stop",
    rule: "4, restart rules: who is stopped while it abstains leaves no clean-stop record",
    changes: [{ file: ORDERING, find: "if (this.#abstention.hides(this.#running)) return null;", replace: "" }],
    suite: "core",
  },
  {
    name: "clean-stop-record-kept",
    rule: "4, restart rules: the clean-stop record is erased before any new vote",
    changes: [
      { file: ORDERING, find: "this.#started = !start.eraseCleanStop;", replace: "this.#started = true;" },
      {
        file: ORDERING,
        find: "if (start.eraseCleanStop) {",
        replace: "if (start.eraseCleanStop && start.regency < 0) {",
      },
    ],
    suite: "core",
  },
  {
    name: "clean-stop-forgets-writes",
    rule: "4, restart rules: a clean stop journals every WRITE beyond the accept records",
    changes: [{ file: ORDERING, find: "if (ballot.ownWrite) messages.push(ballot.ownWrite);", replace: "" }],
    suite: "targeted",
  },
  {
    name: "clean-stop-forgets-proposals",
    rule: "4, restart rules: a clean stop journals every PROPOSE beyond the accept records",
    changes: [
      {
        file: ORDERING,
        find: "if (ballot.proposal?.message && this.leader === this.#context.self) messages.push(ballot.proposal.message);",
        replace: "",
      },
    ],
    suite: "core",
  },
  {
    name: "restarted-synchronizer-sends-sync",
    rule: "4, restart rules: after a crash no SYNC for the regency of before",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (!gathering || this.#ownSync || this.#verified || forgetful || !started || !this.#port.testifies()) return;",
        replace: "if (!gathering || this.#ownSync || this.#verified || !started || !this.#port.testifies()) return;",
      },
      {
        file: SYNCHRONIZATION,
        find: "this.#regency.synced === null && !this.#ordering.forgetful) this.#onDisk();",
        replace: "this.#regency.synced === null) this.#onDisk();",
      },
    ],
    suite: "targeted",
  },
  {
    name: "sync-before-record-is-erased",
    rule: "4, restart rules: no SYNC leaves before the clean-stop record is erased",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (!gathering || this.#ownSync || this.#verified || forgetful || !started || !this.#port.testifies()) return;",
        replace: "if (!gathering || this.#ownSync || this.#verified || forgetful || !this.#port.testifies()) return;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "regency-forgotten",
    rule: "4, restart rules: a replica starts in its journaled regency",
    changes: [{ file: RESTART, find: "    regency: durable.regency,", replace: "    regency: 0," }],
    suite: "core",
  },
  {
    name: "newest-decided-at-start",
    rule: "4.5: last decided is the newest journaled instance less one, unless that was learned as decided",
    changes: [
      {
        file: RESTART,
        find: "newest.certificate ? newest.instance - 1 : newest.instance",
        replace: "newest.instance",
      },
    ],
    suite: "targeted",
  },
  {
    name: "unverified-record-counts-at-start",
    rule: "4.3: at start a record counts as accepted only when its certificate verifies",
    changes: [
      {
        file: RECOVER,
        find: "while (record && !isValid(crypto, view, record)) {",
        replace: "while (record && !record.certificate) {",
      },
    ],
    suite: "world",
  },
  {
    name: "history-without-proof",
    rule: "4.7: history is learned only with a proof",
    changes: [
      {
        file: CATCH_UP,
        find: "if (!this.#proveByStatus(segment)) this.#avoid(source);",
        replace: "this.#port.learn(segment.batches.slice(skipped));",
      },
    ],
    suite: "targeted",
  },
  {
    name: "history-certificate-unverified",
    rule: "4.7: the certificate that proves history is verified",
    changes: [
      {
        file: CATCH_UP,
        find: "if (valid.includes(false)) {",
        replace: "if (valid.length === 0) {",
      },
    ],
    suite: "targeted",
  },
  {
    name: "history-by-certificate-of-itself",
    rule: "4.7: a certificate proves the history below its instance, not its own batch",
    changes: [
      {
        file: SEGMENTS,
        find: "return Math.min(batches.length, certificate.instance - from);",
        replace: "return Math.min(batches.length, certificate.instance - from + 1);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "history-by-one-status",
    rule: "4.7: W signed STATUS prove a height, fewer do not",
    changes: [
      {
        file: CATCH_UP,
        find: "if (matching.length < view.weakQuorum) continue;",
        replace: "if (matching.length < 1) continue;",
      },
      {
        file: CATCH_UP,
        find: "if (valid.filter((ok) => ok).length < view.weakQuorum) {",
        replace: "if (valid.filter((ok) => ok).length < 1) {",
      },
    ],
    suite: "targeted",
  },
  {
    name: "anchor-unchecked",
    rule: "4.7: an anchor proves only the history that hashes to it",
    changes: [
      {
        file: CATCH_UP,
        find: "return over === anchor.digest ? index + 1 : 0;",
        replace: "return over ? index + 1 : 0;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "status-signature-unchecked",
    rule: "4.7: the signatures of STATUS are verified before they prove anything",
    changes: [
      {
        file: CATCH_UP,
        find: "if (valid.filter((ok) => ok).length < view.weakQuorum) {",
        replace: "if (valid.length < view.weakQuorum) {",
      },
    ],
    suite: "targeted",
    redundant:
      "a STATUS counts for the member at the other end of an authenticated link, which signs whatever it likes; the signature lets a STATUS be shown to others",
  },
  {
    name: "execution-before-durable",
    rule: "4.5: execution and replies wait for the own journal",
    changes: [
      {
        file: DRIVER,
        find: "return next !== undefined && next.instance <= this.#durableUpTo && !this.#behind.full;",
        replace: "return next !== undefined && !this.#behind.full;",
      },
    ],
    suite: "world",
  },
];
