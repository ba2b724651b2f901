/** Planted bugs in the synchronization phase (docs/protocol.md section 5). */
import type { Mutation } from "./mutation.ts";

const CERTIFICATE = "protocol/certificate.ts";
const MESSAGES = "protocol/messages.ts";
const ORDERING = "server/consensus/ordering.ts";
const REGENCY = "server/consensus/regency.ts";
const SELECTION = "server/consensus/selection.ts";
const SYNCHRONIZATION = "server/consensus/synchronization.ts";
const VOTING = "server/consensus/voting.ts";

export const SYNCHRONIZATION_BUGS: readonly Mutation[] = [
  {
    name: "old-regency-counts",
    rule: "4.6: votes of a lower regency do not count",
    changes: [
      {
        file: ORDERING,
        find: "if (message.regency < number || message.instance < this.#running.instance - 1) return null;",
        replace: "if (message.instance < this.#running.instance - 1) return null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "votes-after-stopdata",
    rule: "5: nothing of a lower regency leaves once another is installed",
    changes: [
      {
        file: VOTING,
        find: "return ballot.regency === this.#regency.number && this.#regency.journaled;",
        replace: "return ballot.regency >= 0 && this.#regency.journaled;",
      },
    ],
    suite: "core",
  },
  {
    name: "none-as-zero",
    rule: '5: "none" is a value of its own: an accept record of regency 0 is one',
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "const record = this.#ordering.newestAccepted;",
        replace: "const record = this.#ordering.newestAccepted?.regency ? this.#ordering.newestAccepted : null;",
      },
    ],
    suite: "core",
  },
  {
    name: "certificate-without-regency",
    rule: "1: what a WRITE signs binds its regency",
    changes: [
      {
        file: MESSAGES,
        find: '"quorate/write/1", cluster).u32(statement.view).u32(statement.regency);',
        replace: '"quorate/write/1", cluster).u32(statement.view);',
      },
    ],
    suite: "targeted",
  },
  {
    name: "certificate-without-instance",
    rule: "1: what a WRITE signs binds its instance",
    changes: [
      {
        file: MESSAGES,
        find: "return writer.u53(statement.instance).rawLatin1(statement.digest).finish();\n}\n\n/** What a STATUS",
        replace: "return writer.rawLatin1(statement.digest).finish();\n}\n\n/** What a STATUS",
      },
    ],
    suite: "targeted",
    redundant:
      "h(i) is a hash over i and all batches up to i, so no digest stands for two instances; a certificate shown for another instance selects a batch that nobody can have, and is given up",
  },
  {
    name: "repeated-voters",
    rule: "5: a certificate holds Q distinct voters",
    changes: [
      {
        file: CERTIFICATE,
        find: "if (new Set(votes.map((vote) => vote.replica)).size !== votes.length) return null;",
        replace: "",
      },
    ],
    suite: "targeted",
  },
  {
    name: "too-few-voters",
    rule: "5: a certificate holds Q votes",
    changes: [
      {
        file: CERTIFICATE,
        find: "if (certificate.view !== view.id || votes.length < view.quorum) return null;",
        replace: "if (certificate.view !== view.id) return null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "certificate-in-stopdata-unverified",
    rule: "5: the synchronizer and every replica verify the certificates of STOPDATAs",
    changes: [
      { file: SELECTION, find: "return certificate ? [own, ...certificate] : null;", replace: "return [own];" },
    ],
    suite: "targeted",
  },
  {
    name: "stopdata-signature-unchecked",
    rule: "5: a STOPDATA in a SYNC is signed by its member",
    changes: [
      { file: SELECTION, find: "if (!record) return [own];", replace: "if (!record) return [];" },
      {
        file: SELECTION,
        find: "return certificate ? [own, ...certificate] : null;",
        replace: "return certificate ?? [own];",
      },
    ],
    suite: "targeted",
  },
  {
    name: "record-of-this-regency",
    rule: "5: a STOPDATA names a record of an earlier regency",
    changes: [
      {
        file: SELECTION,
        find: "record.regency < regency ? certificateChecks(view, record) : null",
        replace: "certificateChecks(view, record)",
      },
    ],
    suite: "scenario",
  },
  {
    name: "sync-of-too-few",
    rule: "5: a SYNC holds n-f valid STOPDATAs",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (found.length < view.reachable) return this.#invalidSync",
        replace: "if (found.length < view.weakQuorum) return this.#invalidSync",
      },
      {
        file: SYNCHRONIZATION,
        find: "if (valid.length < view.reachable) {",
        replace: "if (valid.length < view.weakQuorum) {",
      },
    ],
    suite: "targeted",
  },
  {
    name: "invalid-stopdata-counts",
    rule: "5: an invalid STOPDATA in a SYNC is skipped",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "return !own.includes(false);",
        replace: "return own.length >= 0;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "selection-ignores-regency",
    rule: "5: selected is the record with the highest (instance, regency)",
    changes: [
      {
        file: SELECTION,
        find: "return b === null || a.instance > b.instance || (a.instance === b.instance && a.regency > b.regency);",
        replace: "return b === null || a.instance > b.instance;",
      },
    ],
    suite: "core",
  },
  {
    name: "selection-ignores-instance",
    rule: "5: selected is the record with the highest (instance, regency)",
    changes: [
      {
        file: SELECTION,
        find: "return b === null || a.instance > b.instance || (a.instance === b.instance && a.regency > b.regency);",
        replace: "return b === null || a.regency > b.regency;",
      },
    ],
    suite: "core",
  },
  {
    name: "batch-of-sync-unchecked",
    rule: "5: every replica checks the batch of a SYNC against the selection it recomputed",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: 'if (candidate.digest !== selection.digest) return reject("ignore", "SYNC_BATCH");',
        replace: "",
      },
    ],
    suite: "core",
  },
  {
    name: "selection-not-recomputed",
    rule: "5: every replica recomputes the selection of a SYNC, whatever comes first in it",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "const selection = selected(valid.map(({ data }) => data));",
        replace: "const selection = valid[0]?.data.record ?? null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "regency-not-journaled",
    rule: "5: a regency is on disk before its STOPDATA, its SYNC and any vote in it",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: '    this.#context.journal([{ type: "regency", view: view.id, regency: number }], () => {\n      this.#regency.onDisk(number);\n      if (this.#regency.number === number) this.#onDisk();\n    });',
        replace:
          '    this.#context.journal([{ type: "regency", view: view.id, regency: number }], () => {});\n    this.#regency.onDisk(number);\n    this.#onDisk();',
      },
    ],
    suite: "core",
  },
  {
    name: "propose-before-sync",
    rule: "5: a PROPOSE of a regency above 0 counts only after its SYNC was verified",
    changes: [
      {
        file: ORDERING,
        find: '(synced === null && (message.type === "PROPOSE" || message.instance < this.#running.instance));',
        replace: "(synced === null && message.instance < this.#running.instance);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "propose-at-instance-of-sync",
    rule: "5: a PROPOSE of a regency above 0 counts only above the instance of its SYNC",
    changes: [
      {
        file: ORDERING,
        find: "if (number > 0 && message.instance <= (synced ?? 0)) return null;",
        replace: "if (number > 0 && synced === null) return null;",
      },
    ],
    suite: "targeted",
    redundant:
      "a ballot takes one proposal, and that of the instance of the SYNC holds its batch; where a certificate stands for the SYNC, too few correct replicas are left to certify anything else, and after a restart i0 is abstained from",
  },
  {
    name: "stop-joined-by-one",
    rule: "5: a replica joins a STOP only with W behind it",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "this.#want(this.#stops.reached(view.weakQuorum));",
        replace: "this.#want(this.#stops.reached(1));",
      },
    ],
    suite: "targeted",
  },
  {
    name: "installed-by-w-stops",
    rule: "5: a regency is installed on Q STOPs",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "const installable = this.#stops.reached(view.quorum);",
        replace: "const installable = this.#stops.reached(view.weakQuorum);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "installed-by-one-status",
    rule: "5: W signed STATUS of a higher regency install it",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "if (ahead.length < view.weakQuorum) return;",
        replace: "if (ahead.length < 1) return;",
      },
      {
        file: SYNCHRONIZATION,
        find: "const reported = signed[view.weakQuorum - 1]?.[1].regency ?? 0;",
        replace: "const reported = signed[0]?.[1].regency ?? 0;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "sync-of-anybody",
    rule: "5: a SYNC comes from the synchronizer of its regency",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: 'if (from !== synchronizerOf(view, regency)) return reject("ignore", "SYNC_NOT_SYNCHRONIZER");',
        replace: "",
      },
    ],
    suite: "scenario",
  },
  {
    name: "two-syncs-acted-on",
    rule: "5: of a regency one SYNC is acted on",
    changes: [
      {
        file: SYNCHRONIZATION,
        find: "const known = this.#regency.synced !== null || this.#verified !== null;",
        replace: "const known = false;",
      },
      {
        file: SYNCHRONIZATION,
        find: "if (sync.regency < number || (sync.regency === number && (synced !== null || this.#verified))) return;",
        replace: "if (sync.regency < number || (sync.regency === number && synced === -1)) return;",
      },
    ],
    suite: "core",
    redundant:
      "any n-f valid STOPDATAs hold the decided value, so a second SYNC asks for nothing unsafe, and a ballot gets one WRITE whatever is proposed; the rule spares the work of verifying SYNC after SYNC",
  },
  {
    name: "ballot-survives-regency",
    rule: "4.6: votes count for one regency only: an installed one starts with an empty ballot",
    changes: [
      {
        file: ORDERING,
        find: "this.#running.ballot = new Ballot(this.#regency.number);\n    this.#revoting = false;\n    this.#lastAccept = null;",
        replace: "this.#revoting = false;\n    this.#lastAccept = null;",
      },
    ],
    suite: "core",
  },
  {
    name: "old-sync-counts",
    rule: "5: the SYNC of one regency says nothing about the next",
    changes: [
      {
        file: REGENCY,
        find: "    this.#number = number;\n    this.#synced = null;",
        replace: "    this.#number = number;\n    this.#synced ??= null;",
      },
    ],
    suite: "core",
  },
];
