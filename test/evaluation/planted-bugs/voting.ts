/** Planted bugs in quorums, votes and what is on disk before them (docs/protocol.md sections 1 and 4.2 to 4.5). */
import type { Mutation } from "./mutation.ts";

const VIEW = "protocol/view.ts";
const VOTES = "server/consensus/votes.ts";
const VOTING = "server/consensus/voting.ts";
const ORDERING = "server/consensus/ordering.ts";
const CHAIN = "server/consensus/chain.ts";
const PROPOSAL = "server/consensus/proposal.ts";

export const VOTING_BUGS: readonly Mutation[] = [
  {
    name: "quorum-of-2f+1",
    rule: "1: Q = floor((n+f)/2)+1, which is not 2f+1 when n != 3f+1",
    changes: [{ file: VIEW, find: "Math.floor((sizes.n + sizes.f) / 2) + 1 :", replace: "2 * sizes.f + 1 :" }],
    suite: "targeted",
  },
  {
    name: "quorum-one-less",
    rule: "1: Q = floor((n+f)/2)+1",
    changes: [
      {
        file: VIEW,
        find: "Math.floor((sizes.n + sizes.f) / 2) + 1 :",
        replace: "Math.floor((sizes.n + sizes.f) / 2) :",
      },
    ],
    suite: "core",
  },
  {
    name: "weak-quorum-one-less",
    rule: "1: W = f+1, one correct replica is behind it",
    changes: [
      { file: VIEW, find: 'weakQuorum: mode === "bft" ? f + 1 : 1', replace: 'weakQuorum: mode === "bft" ? f : 1' },
    ],
    suite: "core",
  },
  {
    name: "sender-counted-twice",
    rule: "4.6: one vote per sender and kind",
    changes: [{ file: VOTES, find: "if (this.#votes.has(vote.sender)) return false;", replace: "" }],
    suite: "core",
  },
  {
    name: "second-write",
    rule: "4.2: one WRITE per (view, instance, regency), for the first proposal",
    changes: [
      {
        file: ORDERING,
        find: "if (this.#running.ballot.proposal || this.#running.ballot.refused) return null;",
        replace: "",
      },
      {
        file: VOTING,
        find: "if (!proposal || ballot.ownWrite || !this.#isOpen(ballot)",
        replace: "if (!proposal || ballot.ownWrite?.digest === proposal.candidate.digest || !this.#isOpen(ballot)",
      },
    ],
    suite: "targeted",
  },
  {
    name: "held-proposal-written",
    rule: "4.2: no WRITE for a request whose origin is not proven, unless W vouch",
    changes: [
      {
        file: VOTING,
        find: "return vouched || approved(this.#context, proposal, sinceWallMs);",
        replace: "return vouched || sinceWallMs >= 0;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "time-goes-back",
    rule: "4.2: a batch's timestamp is not below the previous one's",
    changes: [
      {
        file: PROPOSAL,
        find: 'if (batch.timestampMs < position.timestampMs) return reject("ignore", "PROPOSE_TIMESTAMP");',
        replace: "if (position.timestampMs < 0) return null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "accept-before-journal",
    rule: "4.3: the accept record is on disk, synced, before ACCEPT",
    changes: [
      {
        file: VOTING,
        find: "if (!certification?.verified || !certification.journaled || ballot.ownAccept) return;",
        replace: "if (!certification?.verified || ballot.ownAccept) return;",
      },
    ],
    suite: "core",
  },
  {
    name: "accept-before-verification",
    rule: "4.3: ACCEPT only when the signatures of its certificate have verified",
    changes: [
      {
        file: VOTING,
        find: "if (!certification?.verified || !certification.journaled || ballot.ownAccept) return;",
        replace: "if (!certification?.journaled || ballot.ownAccept) return;",
      },
      {
        file: VOTING,
        find: "    if (certification.verified && certification.journaled) {\n      const { instance, digest, votes }",
        replace: "    if (certification.journaled) {\n      const { instance, digest, votes }",
      },
    ],
    suite: "core",
  },
  {
    name: "unverified-certificate-replaces-record",
    rule: "4.3: a record on disk is replaced only when the certificate of the new one has verified",
    changes: [
      {
        file: VOTING,
        find: "const replaced = running.lastRecord;",
        replace: "const replaced: LastRecord | null = null;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "old-certificate-replaces-record",
    rule: "4.3: a certificate whose regency is gone by the time it has verified is not journaled",
    changes: [
      {
        file: VOTING,
        find: "return this.#isOpen(ballot) && (lastRecord === replaced || lastRecord?.digest === digest);",
        replace: "return lastRecord === replaced || lastRecord?.digest === digest;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "certificate-replaces-decided-record",
    rule: "4.3: a certificate does not replace the record of another batch that was decided meanwhile",
    changes: [
      {
        file: VOTING,
        find: "return this.#isOpen(ballot) && (lastRecord === replaced || lastRecord?.digest === digest);",
        replace: "return this.#isOpen(ballot) && (lastRecord === replaced || digest !== undefined);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "decided-record-replaces-accept-record",
    rule: "4.3: an accept record is never replaced by a record that the same batch is decided",
    changes: [
      {
        file: CHAIN,
        find: "if (lastRecord?.certified && lastRecord.digest === candidate.digest) {",
        replace: "if (lastRecord?.certified && lastRecord.digest !== candidate.digest) {",
      },
    ],
    suite: "core",
  },
  {
    name: "next-instance-before-journal",
    rule: "4.5: no vote and no proposal in i+1 before i is in the own journal",
    changes: [
      {
        file: ORDERING,
        find: "return this.#started && !this.#stopped && this.#chain.settled && this.#port.recollection().heard;",
        replace: "return this.#started && !this.#stopped && this.#port.recollection().heard;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "durable-before-journal",
    rule: "4.5: execution waits until the decided batch is in the own journal",
    changes: [
      {
        file: CHAIN,
        find: "if (lastRecord.durable) this.#durable(running.instance);",
        replace: "this.#durable(running.instance);",
      },
    ],
    suite: "targeted",
  },
  {
    name: "decided-on-w-accepts",
    rule: "4.4: decided on Q ACCEPTs",
    changes: [
      {
        file: ORDERING,
        find: "if (!candidate || votes.count(believed) < view.quorum) return;",
        replace: "if (!candidate || votes.count(believed) < view.weakQuorum) return;",
      },
    ],
    suite: "targeted",
  },
  {
    name: "lacking-batch-not-fetched",
    rule: "4.3 and 4.4: a batch with Q WRITEs or W ACCEPTs that is not here is fetched by digest",
    changes: [
      { file: CHAIN, find: "if (running.instance !== instance) return;", replace: "if (running.instance > 0) return;" },
    ],
    suite: "targeted",
  },
];
