/**
 * Planted bugs in what a replica may have forgotten, in checkpoints, in fetching a state and in the stores beneath (docs/protocol.md
 * sections 4 and 6).
 */
import type { Mutation } from "./mutation.ts";

const ATTEMPT = "server/recovery/attempt.ts";
const CHECKPOINTS = "server/archive/checkpoints.ts";
const CONTEXT = "server/consensus/context.ts";
const CORE = "server/core.ts";
const FETCH = "server/recovery/checkpoint-fetch.ts";
const JOURNAL = "storage/journal.ts";
const LOG_FETCH = "server/recovery/log-fetch.ts";
const LOG_SERVER = "server/archive/log-server.ts";
const OFFERS = "server/recovery/offers.ts";
const ORDERING = "server/consensus/ordering.ts";
const PROBE = "server/recovery/probe.ts";
const RECOLLECTION = "server/consensus/recollection.ts";
const ROOTS = "server/archive/roots.ts";
const SYNCHRONIZATION = "server/consensus/synchronization.ts";
const TRANSFER = "server/recovery/state-transfer.ts";
const WITNESSES = "server/recovery/witnesses.ts";

const RECOLLECTION_TEST = ["test/unit/consensus/recollection.test.ts"];
const TRANSFER_TESTS = ["test/unit/recovery"];
const ARCHIVE_TESTS = ["test/unit/server"];
const STORAGE_TESTS = ["test/unit/storage/disk.test.ts"];

const FORGETTING_BUGS: readonly Mutation[] = [
  {
    name: "votes-before-heard",
    rule: "4, lost journal: no vote before n-Q+f others said what they remember",
    changes: [
      { file: RECOLLECTION, find: "if (!this.#heard) return true;", replace: "" },
      {
        file: ORDERING,
        find: "this.#chain.settled && this.#port.recollection().heard;",
        replace: "this.#chain.settled;",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
    redundant:
      "nothing but what was said before is sent before it is journaled, or its regency is, and before the others were heard nothing is journaled; the restart rules cover the instance above the journal",
  },
  {
    name: "until-one-short",
    rule: "4, lost journal: we may have voted in the instance above the newest certificate",
    changes: [
      {
        file: RECOLLECTION,
        find: "const until = this.#certifiedBy(testimonies) + 1;",
        replace: "const until = this.#certifiedBy(testimonies);",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "forgetful-testimony",
    rule: "4, lost journal: no STOPDATA before a certificate above what was forgotten is held",
    changes: [
      {
        file: RECOLLECTION,
        find: "return this.#forgotten === null || (until !== null && (this.#port.newestAccepted()?.instance ?? 0) > until);",
        replace: "return this.#forgotten === null || until !== null;",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "floor-ignored",
    rule: "4, lost journal: no vote in a regency below the one that others may have heard of",
    changes: [{ file: RECOLLECTION, find: " || regency < forgotten.regency;", replace: ";" }],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "accept-while-silent",
    rule: "4, lost journal: no ACCEPT either up to what was forgotten",
    changes: [
      {
        file: "server/consensus/voting.ts",
        find: "this.#port.stopped() || this.#port.silent(running)) return;",
        replace: "this.#port.stopped()) return;",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "rollback-evidence-ignored",
    rule: "4, lost journal: a vote newer than the journal shows that the disk is older than we were",
    changes: [
      {
        file: RECOLLECTION,
        find: "return write.instance > this.#horizon.instance || write.regency > this.#horizon.regency;",
        replace: "return write.instance < 0;",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "own-votes-are-evidence",
    rule: "4, lost journal: a vote of this run proves nothing, whoever shows it",
    changes: [{ file: ORDERING, find: "this.#port.recollection().accountFor(place)", replace: "void place" }],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "journal-outgrows-evidence",
    rule: "4, lost journal: before the others were heard the journal does not grow past what they could show",
    changes: [
      { file: CORE, find: "context.holdJournal();", replace: "" },
      {
        file: RECOLLECTION,
        find: `      this.#context.holdJournal();
      this.#context.journalNow([{ type: "forgotten", ...forgotten }], () => undefined);`,
        replace: "",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "clean-stop-while-held",
    rule: "4, restart rules: a stop before the others were heard leaves the record of an earlier one as it is",
    changes: [{ file: CORE, find: "messages: votes && !this.#context.holdsJournal ?", replace: "messages: votes ?" }],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "held-journal-lost",
    rule: "4, lost journal: what waited for the others is journaled once they were heard",
    changes: [{ file: CONTEXT, find: "for (const journal of held) journal();", replace: "void held;" }],
    suite: "core",
  },
  {
    name: "forgetful-remembers-for-others",
    rule: "4, lost journal: the silence of one that forgot is no memory",
    changes: [
      {
        file: RECOLLECTION,
        find: "if (until !== undefined && (until === null || known < until)) return null;",
        replace: "void [until, known];",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
];

const TRANSFER_BUGS: readonly Mutation[] = [
  {
    name: "no-witnesses",
    rule: "6: a checkpoint is accepted only when f others have the same roots",
    changes: [
      {
        file: WITNESSES,
        find: "return this.#matched.size >= this.#options.view.rootWitnesses;",
        replace: "return true;",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "donor-is-witness",
    rule: "6: the donor is no witness of its own checkpoint",
    changes: [{ file: WITNESSES, find: "id !== self && id !== donor", replace: "id !== self && donor >= 0" }],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "contradiction-ignored",
    rule: "6: W others against a state prove that its donor lied",
    changes: [
      {
        file: WITNESSES,
        find: "return this.#contradicting.size >= this.#options.view.weakQuorum;",
        replace: "return this.#contradicting.size < 0;",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "one-contradiction-suffices",
    rule: "6: one root against a state proves nothing",
    changes: [
      {
        file: WITNESSES,
        find: "return this.#contradicting.size >= this.#options.view.weakQuorum;",
        replace: "return this.#contradicting.size >= 1;",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "chunk-unchecked",
    rule: "6: each chunk is checked against the manifest before it is used",
    changes: [
      {
        file: FETCH,
        find: "if (chunk.length !== bytes || crypto.sha256(chunk) !== digest)",
        replace: 'if (crypto.sha256(chunk) === "")',
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "manifest-unchecked",
    rule: "6: the manifest is the one that the offered root commits to",
    changes: [
      {
        file: FETCH,
        find: "if (crypto.sha256(manifest) !== header.manifest)",
        replace: 'if (crypto.sha256(manifest) === "")',
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "segment-certificate-unverified",
    rule: "6: log is proven by a certificate whose signatures were verified",
    changes: [
      {
        file: LOG_FETCH,
        find: `      this.#checking.delete(from);
      if (!valid.every((ok) => ok)) {`,
        replace: `      this.#checking.delete(from);
      if (valid.length === 0) {`,
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "history-below-log-unchecked",
    rule: "6: the checkpoint stands at the digest that the log above it begins with",
    changes: [
      {
        file: ATTEMPT,
        find: "base === executed.instance && baseDigest !== executed.digest",
        replace: "base < 0 && baseDigest !== executed.digest",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "root-of-another-instance",
    rule: "6: roots are compared at the very instance they were signed for",
    changes: [
      {
        file: TRANSFER,
        find: 'this.#effects.push({ type: "computeRoot", instance });',
        replace: 'this.#effects.push({ type: "computeRoot", instance: instance + 1 });',
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "offered-root-unverified",
    rule: "6: the roots of others count once their signatures are verified",
    changes: [
      {
        file: OFFERS,
        find: "if (valid.every((ok) => ok)) for (const root of fresh)",
        replace: "if (valid.length > 0) for (const root of fresh)",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "certificate-decides-itself",
    rule: "4.7: a certificate proves what lies below it, which is no height that anybody has reached",
    changes: [{ file: OFFERS, find: "(this.newest?.instance ?? 1) - 1", replace: "(this.newest?.instance ?? 1)" }],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "needless-transfer",
    rule: "6: who could go on by log does not wait for a checkpoint that nobody has",
    changes: [
      {
        file: "server/recovery/donor-search.ts",
        find: "if (!this.#optional || ",
        replace: "if (this.#optional || ",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
];

const TRIAL_BUGS: readonly Mutation[] = [
  {
    name: "log-of-the-dead-waited-for",
    rule: "6: what nobody has proven for long is not waited for: a root right above the proven log is compared on trial",
    changes: [
      {
        file: "server/recovery/state-transfer.ts",
        find: "if (!this.#replay(attempt, next) && attempt.provenEnd === instance) this.#askBeyond(attempt, instance);",
        replace: "this.#replay(attempt, next);",
      },
    ],
    suite: "unit",
    tests: ["test/unit/simulation/run.test.ts"],
  },
  {
    name: "dead-donor-for-ever",
    rule: "6: whose checkpoint is not delivered is no donor until it offers anew",
    changes: [
      {
        file: TRANSFER,
        find: '        this.#donors.gone(attempt);\n        this.#drop("STALLED");',
        replace: '        this.#drop("STALLED");',
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "never-tried",
    rule: "6: others that stand one instance apart for good do not hold a transfer up",
    changes: [{ file: TRANSFER, find: "      this.#askBeyond(attempt, this.#reachable(attempt));\n", replace: "" }],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "tried-is-matched",
    rule: "6: whoever's batch is tried vouches only with an equal root",
    changes: [
      {
        file: WITNESSES,
        find: "const matching = this.at(instance).filter((id) => this.#options.rootsOf(id).get(instance) === root);",
        replace: "const matching = this.at(instance);",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "tried-on-any-history",
    rule: "6: a batch is tried only where it stands on the history of the staged state",
    changes: [{ file: PROBE, find: "segment.previous === place.digest && inOrder", replace: "inOrder" }],
    suite: "unit",
    tests: TRANSFER_TESTS,
    redundant: "the root covers h(i), which covers what is below: it differs",
  },
  {
    name: "unverified-proof-served",
    rule: "4.7: a certificate whose signatures are still being checked proves nothing to others",
    changes: [
      {
        file: LOG_SERVER,
        find: "certificate && (await this.#port.holds(certificate))) return { links, certificate };",
        replace: "certificate) return { links, certificate };",
      },
    ],
    suite: "unit",
    tests: ["test/unit/server/log-server.test.ts"],
  },
  {
    name: "scrub-takes-truncation-for-damage",
    rule: "6, scrub: what is being dropped from the log is not lost",
    changes: [
      {
        file: "server/archive/scrub.ts",
        find: "    for (const record of records) at = this.#checked(record, at);",
        replace:
          '    if (records.length === 0 && this.#journal.base.instance <= at.instance) throw damagedJournal(to, "");\n    for (const record of records) at = this.#checked(record, at);',
      },
    ],
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
  {
    name: "trial-not-undone",
    rule: "6: a tried batch leaves nothing behind",
    changes: [
      {
        file: "server/transfer/staging.ts",
        find: "    if (group) root = await this.#rootOf(overlaid(state.snapshot(), group));",
        replace: "    if (group) await state.write(group);\n    root = await this.#rootOf(state.snapshot());",
      },
    ],
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
  {
    name: "settled-at-once",
    rule: "6: a state accepted by a trial is not read before the tried instance",
    changes: [
      {
        file: "server/driver.ts",
        find: "Math.max(start.newest?.instance ?? 0, parts.settledFrom)",
        replace: "start.newest?.instance ?? 0",
      },
    ],
    suite: "unit",
    tests: ["test/unit/simulation/world.test.ts"],
  },
  {
    name: "roots-before-settled",
    rule: "6: no root of a state that may be wrong yet",
    changes: [{ file: CHECKPOINTS, find: " || instance < settledFrom", replace: "" }],
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
];

const STORE_BUGS: readonly Mutation[] = [
  {
    name: "another-batch-of-the-installed-instance",
    rule: "6: an accept record of another batch than was decided does not cost the state that is installed at its instance",
    changes: [
      {
        file: "storage/open.ts",
        find: "return summary.base.instance < instance && this.#digestAt(scan, instance) !== digest;",
        replace: "return false;",
      },
    ],
    suite: "unit",
    tests: STORAGE_TESTS,
  },
  {
    name: "truncation-drops-certificate",
    rule: "6: the newest certificate outlives the record it was in",
    changes: [
      {
        file: JOURNAL,
        find: "keptCertificate: newerCertificate(this.#control.keptCertificate, certificate),",
        replace: "keptCertificate: this.#control.keptCertificate,",
      },
    ],
    suite: "unit",
    tests: STORAGE_TESTS,
  },
  {
    name: "explained-vote-is-evidence-again",
    rule: "4, lost journal: what the bound covered is no news once nothing is forgotten",
    changes: [
      {
        file: RECOLLECTION,
        find: "this.accountFor({ instance: forgotten.until ?? 0, regency: forgotten.regency });",
        replace: "",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "certificate-kept-without-its-batch",
    rule: "5, 6: with a state comes a certificate of its own history, where there is one: STOPDATA names no batch that is lost",
    changes: [
      {
        file: TRANSFER,
        find: "this.#offers.certificateAt(place.instance)",
        replace: "this.#offers.newest",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "stop-before-it-is-on-disk",
    rule: "4, 5: a STOP leaves once the regency that it asks for is on disk",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (regency <= this.#askedFor) this.#sendStop();",
        replace:
          "this.#askedFor = Math.max(this.#askedFor, regency);\n    if (regency <= this.#askedFor) this.#sendStop();",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "stop-forgotten-by-a-restart",
    rule: "4, lost journal: who asked for a regency says so after a restart",
    changes: [
      { file: SYNCHRONIZATION, find: "this.#askedFor = start.wanted;", replace: "this.#askedFor = 0 * start.wanted;" },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "asked-before-not-again",
    rule: "4, lost journal: what was asked for before a restart is asked for again with whoever needs it",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "    this.#want(Math.min(message.regency, this.#askedFor));\n",
        replace: "",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "forgotten-accept-unsaid",
    rule: "4, lost journal: who forgot bounds the votes of others only with a certificate that covers what it forgot",
    changes: [
      {
        file: RECOLLECTION,
        find: "const known = Math.min(this.#port.executedUpTo(), newest?.instance ?? 0);",
        replace: "const known = this.#port.executedUpTo();",
      },
    ],
    suite: "unit",
    tests: RECOLLECTION_TEST,
  },
  {
    name: "silence-taken-for-nothing-newer",
    rule: "6: a state is needless when W members say that there is nothing newer, not when nobody has answered",
    changes: [
      {
        file: "server/recovery/donor-search.ts",
        find: "offers.all.size >= view.weakQuorum && offers.target",
        replace: "offers.target",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "waits-for-witnesses-in-vain",
    rule: "6: who can do by log waits for no root where there is one donor alone",
    changes: [
      {
        file: "server/recovery/state-transfer.ts",
        find: "if (!forLog && !other && this.#donors.logMayDo) {",
        replace: "if (false) {",
      },
    ],
    suite: "unit",
    tests: TRANSFER_TESTS,
  },
  {
    name: "log-buffer-without-bound",
    rule: "6: what is buffered of the log is bounded, but for the segment that execution waits for",
    changes: [
      {
        file: "server/recovery/proven-log.ts",
        find: "(this.full && run.from !== this.#base + 1)",
        replace: "(this.full && run.from !== this.through + 1)",
      },
    ],
    suite: "unit",
    tests: ["test/unit/recovery/segments.test.ts"],
  },
  {
    name: "rebase-remembers",
    rule: "6: what was forgotten stays forgotten when the journal begins above a fetched state",
    changes: [
      {
        file: JOURNAL,
        find: `    bared: [],
    keptCertificate: newerCertificate(own, certificate),`,
        replace: `    bared: [],
    forgotten: null,
    keptCertificate: newerCertificate(own, certificate),`,
      },
    ],
    suite: "unit",
    tests: STORAGE_TESTS,
  },
  {
    name: "install-before-flush",
    rule: "6: a fetched state is installed with everything that was executed on it",
    changes: [{ file: "server/transfer/transfer.ts", find: "    await this.#staging.flush();\n", replace: "" }],
    // A whole replica fetches what is missing as log, and is hardly ever seen to be behind.
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
  {
    name: "cut-without-its-group",
    rule: "6: a checkpoint is the state at exactly its instance",
    changes: [
      { file: "server/write-behind.ts", find: "if (cut.group) await this.#group(cut.group);", replace: "" },
      {
        file: "server/write-behind.ts",
        find: 'assert(this.#store.applied.instance === cut.instance, "a cut group leaves the state store where it was cut");',
        replace: "",
      },
    ],
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
  {
    name: "truncation-above-state",
    rule: "6: the log stays at least until the state is on disk past it",
    changes: [
      {
        file: CHECKPOINTS,
        find: "return Math.min(neededFrom, state.applied.instance, journal.last,",
        replace: "return Math.min(neededFrom, journal.last,",
      },
    ],
    suite: "unit",
    tests: ARCHIVE_TESTS,
    redundant:
      "a checkpoint begins with a snapshot of what is on disk, so the state stands above the second-newest one; the bound holds whatever becomes of that",
  },
  {
    name: "repair-on-f-others",
    rule: "6: a replica takes itself for wrong only against a quorum of others",
    changes: [
      {
        file: ROOTS,
        find: "if (replicas.length < this.#view.quorum) continue;",
        replace: "if (replicas.length < this.#view.f) continue;",
      },
    ],
    suite: "unit",
    tests: ARCHIVE_TESTS,
  },
];

export const RECOVERY_BUGS: readonly Mutation[] = [...FORGETTING_BUGS, ...TRANSFER_BUGS, ...TRIAL_BUGS, ...STORE_BUGS];
