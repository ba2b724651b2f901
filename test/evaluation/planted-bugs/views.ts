/** Planted bugs in changes of the membership: what the next view is, links, and how clients follow (docs/protocol.md section 7). */
import type { Mutation } from "./mutation.ts";

const DRIVER = "server/driver.ts";
const CORE = "server/core.ts";
const HOST = "server/host.ts";
const RECOLLECTION = "server/consensus/recollection.ts";
const RESTART = "server/consensus/restart.ts";
const NEXT_VIEW = "protocol/next-view.ts";
const VIEW_CHAIN = "protocol/view-chain.ts";
const CONNECTION = "client/connection.ts";
const ENGINE = "client/engine.ts";
const SENDER = "client/sender.ts";
const CLIENT_SESSION = "server/network/client-session.ts";
const PRESENTATION = "server/network/presentation.ts";

const TESTS = {
  nextView: ["test/unit/protocol/next-view.test.ts"],
  chain: ["test/unit/protocol/view-chain.test.ts"],
  crypto: ["test/unit/protocol/crypto.test.ts"],
  client: ["test/unit/client/views.test.ts"],
  gateway: ["test/unit/network/gateway.test.ts"],
  world: ["test/unit/simulation/views.test.ts"],
  start: ["test/unit/consensus/next-view-start.test.ts"],
  recollection: ["test/unit/consensus/recollection.test.ts"],
  views: ["test/unit/server/views.test.ts"],
  presentation: ["test/unit/network/presentation.test.ts"],
} as const;

export const VIEW_BUGS: readonly Mutation[] = [
  {
    name: "links-of-strangers-unproven",
    rule: "7: links that a stranger brings are proven before they are heard",
    changes: [
      {
        file: "server/views.ts",
        find: "if (isRejection(longer)) break;\n      reached = longer;",
        replace: "if (!isRejection(longer)) reached = longer;",
      },
    ],
    suite: "unit",
    tests: TESTS.views,
  },
  {
    name: "chain-of-another-cluster-taken",
    rule: "7: links are brought to members of the same cluster alone",
    changes: [
      {
        file: PRESENTATION,
        find: 'if (presented.cluster !== this.#cluster) return { type: "fault", code: "LINK_CLUSTER" };',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.presentation,
  },
  {
    name: "moved-member-not-found",
    rule: "7: links are brought to where a member was, too",
    changes: [
      {
        file: "server/network/tcp-links.ts",
        find: "const places = [slot.member, ...chain.formerly(slot.member.id)];",
        replace: "const places = [slot.member];",
      },
    ],
    suite: "unit",
    tests: TESTS.presentation,
  },
  {
    name: "false-links-cost-nothing",
    rule: "7: who brings links that lead nowhere is cut off and counted",
    changes: [
      {
        file: PRESENTATION,
        find: 'return this.#chain.take(links) ? { type: "done" } : { type: "fault", code: "LINK_CHAIN" };',
        replace: 'this.#chain.take(links);\n    return { type: "done" };',
      },
    ],
    suite: "unit",
    tests: TESTS.presentation,
  },
  {
    name: "chain-not-brought",
    rule: "7: links are brought to whoever there should be a link to and is none",
    changes: [
      {
        file: "server/network/tcp-links.ts",
        find: "      if (link === null) {\n        this.#present(slot);\n        continue;\n      }",
        replace: "      if (link === null) continue;",
      },
    ],
    suite: "unit",
    tests: TESTS.presentation,
  },
  {
    name: "vote-shown-to-no-member",
    rule: "4: a replica that is no member has no vote that a peer could show it",
    changes: [
      {
        file: RECOLLECTION,
        find: "    const member = memberOf(view, self);\n    if (!member) return null;\n",
        replace: "    memberOf(view, self);\n    const member = this.#context.member(self);\n",
      },
    ],
    suite: "unit",
    tests: TESTS.recollection,
  },
  {
    name: "change-of-another-view-taken",
    rule: "7: a change is made for one view alone, and taken in no other",
    changes: [
      { file: NEXT_VIEW, find: 'if (body.expected !== view.digest) return { refused: "OTHER_VIEW" };', replace: "" },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "expired-change-taken",
    rule: "7: a change is not made after its not-after time",
    changes: [
      {
        file: NEXT_VIEW,
        find: 'if (batch.timestampMs > signed.notAfterMs) return { refused: "EXPIRED" };',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "unsigned-change-taken",
    rule: "7: a change is signed by the administrators of the view in force",
    changes: [
      {
        file: NEXT_VIEW,
        find: 'if (!signedByAdministrators(crypto, view, signed)) return { refused: "ADMINISTRATORS" };',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "administrators-signatures-unverified",
    rule: "7: every signature of an administrator is verified",
    changes: [
      {
        file: NEXT_VIEW,
        find: "return checks.every(({ publicKey, statement, signature }) => crypto.verify(publicKey, statement, signature));",
        replace: "return true;",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "other-result-taken",
    rule: "7: what comes out is what was signed",
    changes: [
      {
        file: NEXT_VIEW,
        find: 'return made.view.digest === body.resulting ? made : { refused: "OTHER_RESULT" };',
        replace: "return made;",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "id-used-again",
    rule: "7: an id is never used again",
    changes: [{ file: NEXT_VIEW, find: 'if (member.id < view.idsBelow) return "ID_USED";', replace: "" }],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "ids-forgotten",
    rule: "7: a view remembers every id that was used",
    changes: [{ file: NEXT_VIEW, find: "idsBelow: member.id + 1 };", replace: "idsBelow: view.idsBelow };" }],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "too-few-for-f",
    rule: "7: n and f fit the mode, whatever changes",
    changes: [
      {
        file: NEXT_VIEW,
        find: "if (n < 1 || n > REPLICAS_MAX || f > faultsTolerated({ n, mode: view.mode }))",
        replace: "if (n < 1 || n > REPLICAS_MAX)",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "unready-member-taken",
    rule: "7: who joins, or changes its keys, has signed READY",
    changes: [{ file: NEXT_VIEW, find: "if (unready) return { refused: unready };", replace: "" }],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "old-ready-taken",
    rule: "7: a READY is at most so old",
    changes: [
      { file: NEXT_VIEW, find: "if (age < 0 || age > READY_AGE_INSTANCES_MAX) return", replace: "if (age < 0) return" },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "ready-of-any-view",
    rule: "7: a READY is for one view alone",
    changes: [
      {
        file: "protocol/reconfiguration.ts",
        find: 'writeTag(new Writer(512), "quorate/ready/1", cluster).rawLatin1(claim.view);',
        replace: 'writeTag(new Writer(512), "quorate/ready/1", cluster);',
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "one-identity-two-votes",
    rule: "7: no two members have a key in common",
    changes: [{ file: NEXT_VIEW, find: 'if (used) return "KEY_USED";', replace: "" }],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "weak-box-key-taken",
    rule: "7: a member's box key is not of low order",
    changes: [{ file: NEXT_VIEW, find: "crypto.agree(PROBE_SECRET, boxKey);", replace: "" }],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "administrators-locked-out",
    rule: "7: the threshold of administrators can be reached",
    changes: [
      {
        file: NEXT_VIEW,
        find: 'if (administratorThreshold < 1 || administratorThreshold > administrators.length) return { refused: "THRESHOLD" };',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "large-change-taken",
    rule: "7: a change fits a link",
    changes: [
      {
        file: NEXT_VIEW,
        find: 'if (request.bytes.length > LINK_BATCH_BYTES_MAX - BATCH_HEADER_BYTES - BATCH_REQUEST_HEADER_BYTES) return "SIZE";',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "reconfigure-among-others",
    rule: "7: a RECONFIGURE fills a batch of its own",
    changes: [
      {
        file: "protocol/batch.ts",
        find: 'if (count > 1 && reconfigures(request)) throw new Malformed("BATCH_RECONFIGURE");',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.nextView,
  },
  {
    name: "link-of-a-weak-quorum",
    rule: "7: a link has the signatures of a quorum",
    changes: [
      {
        file: VIEW_CHAIN,
        find: "if (votes.length < view.quorum) return null;",
        replace: "if (votes.length < view.weakQuorum) return null;",
      },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "link-voter-twice",
    rule: "7: a link's voters are different ones",
    changes: [
      {
        file: VIEW_CHAIN,
        find: "if (new Set(votes.map(({ replica }) => replica)).size !== votes.length) return null;",
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "link-unverified",
    rule: "7: every signature of a link is verified",
    changes: [
      {
        file: VIEW_CHAIN,
        find: "if (!checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature))) return null;",
        replace: "if (!checks) return null;",
      },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "link-of-another-view",
    rule: "7: a link is of the view it is held against",
    changes: [
      { file: VIEW_CHAIN, find: "if (reconfigurationOf(batch)?.expected !== view.digest) return null;", replace: "" },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "links-go-back",
    rule: "7: the instances of links rise",
    changes: [
      {
        file: VIEW_CHAIN,
        find: 'if ("refused" in next || link.instance < this.firstInstanceOf(this.newest.id)) return null;',
        replace: 'if ("refused" in next) return null;',
      },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "view-in-force-too-early",
    rule: "7: a view is in force from the instance after its RECONFIGURE on",
    changes: [
      {
        file: VIEW_CHAIN,
        find: "while (viewId > 0 && instance <= (this.#links[viewId - 1] as Link).instance) viewId--;",
        replace: "while (viewId > 0 && instance < (this.#links[viewId - 1] as Link).instance) viewId--;",
      },
    ],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "write-taken-for-accept",
    rule: "7: a WRITE's signature is none on an ACCEPT",
    changes: [{ file: "protocol/messages.ts", find: '"quorate/accept/1"', replace: '"quorate/write/1"' }],
    suite: "unit",
    tests: TESTS.chain,
  },
  {
    name: "altered-signature-in-browsers",
    rule: "7: browsers take no signature that servers refuse",
    changes: [
      { file: "protocol/crypto/portable.ts", find: "return canonical(signature) && nacl", replace: "return nacl" },
    ],
    suite: "unit",
    tests: TESTS.crypto,
  },
  {
    name: "votes-of-other-views-count",
    rule: "7: answers count only when they name the client's own view",
    changes: [{ file: ENGINE, find: "if (reply.view !== view.id) return;", replace: "" }],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "votes-kept-across-views",
    rule: "7: another view begins the votes on a request anew",
    changes: [{ file: SENDER, find: "    entry.votes = new Votes(this.#cluster.view.n);\n", replace: "" }],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "old-proofs-in-a-new-view",
    rule: "7: a request is proved anew for another view",
    changes: [
      {
        file: SENDER,
        find: "    entry.proof = this.#credentials.prove(entry.digest, this.signed);\n    entry.replier",
        replace: "    entry.replier",
      },
    ],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "newer-view-not-asked-about",
    rule: "7: who is told of a newer view asks for the way to it",
    changes: [{ file: ENGINE, find: "if (reply.view > view.id) connection.onNamedView(reply.view);", replace: "" }],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "fetch-storm",
    rule: "7: links are asked for at most once per half second and replica",
    changes: [{ file: CONNECTION, find: " || now < this.#linksAgainAt) return;", replace: ") return;" }],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "false-links-unpunished",
    rule: "7: who sends links that prove nothing loses the connection",
    changes: [
      {
        file: CONNECTION,
        find: '    if (verdict === "invalid") {\n      this.punish("it sent links that prove nothing");\n      return;\n    }\n',
        replace: "",
      },
    ],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "who-took-the-place-is-not-asked",
    rule: "7: another replica at a member's address may show the way",
    changes: [
      {
        file: CONNECTION,
        find: "    this.onNamedView(hello.view);\n    if (this.#misplaced) {",
        replace: "    if (!this.#misplaced) this.onNamedView(hello.view);\n    if (this.#misplaced) {",
      },
    ],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "views-not-kept",
    rule: "7: what was followed is saved",
    changes: [{ file: "client/view-follower.ts", find: "    this.#save();\n", replace: "" }],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "links-for-clients-only",
    rule: "7: links are for anybody, before AUTH, too",
    changes: [
      {
        file: CLIENT_SESSION,
        find: 'else if (decoded.type === "FETCH_LINKS") this',
        replace: 'else if (decoded.type === "FETCH_LINKS" && this.authenticated) this',
      },
    ],
    suite: "unit",
    tests: TESTS.gateway,
  },
  {
    name: "links-without-end",
    rule: "7: a connection gets so many answers of links",
    changes: [
      {
        file: CLIENT_SESSION,
        find: "if (paidMs - nowMs > LINKS_MS_MIN * LINKS_AT_ONCE_MAX) {",
        replace: "if (paidMs < nowMs) {",
      },
    ],
    suite: "unit",
    tests: TESTS.gateway,
  },
  {
    name: "plain-accept-ends-view",
    rule: "7: the batch that ends a view is decided on signed ACCEPTs",
    changes: [
      {
        file: "server/consensus/voting.ts",
        find: "const endsView = running.candidates.get(digest)?.next !== null;",
        replace: "const endsView = false;",
      },
    ],
    suite: "unit",
    tests: TESTS.world,
  },
  {
    name: "reads-to-the-end",
    rule: "3: no unordered read from accepting the end of a view on",
    changes: [{ file: DRIVER, find: " && !this.#core.ending;", replace: ";" }],
    suite: "unit",
    tests: TESTS.world,
  },
  {
    name: "state-before-its-link",
    rule: "7: no state of a view reaches the disk before the link to that view",
    changes: [
      { file: DRIVER, find: "if (!this.#aheadOfLinks) this.#behind.write();", replace: "this.#behind.write();" },
    ],
    suite: "unit",
    tests: TESTS.world,
    redundant: "a start without links asks the members of the view for them before anything else",
  },
  {
    name: "last-batch-not-taken-from-its-link",
    rule: "7: the link holds the last batch of the view, which nobody else may serve any more",
    changes: [{ file: CORE, find: "      this.#learnLast();\n", replace: "" }],
    suite: "unit",
    tests: TESTS.world,
  },
  {
    name: "forgotten-ends-with-its-view",
    rule: "4, 7: a journal may have been lost in a later view than the one that ends",
    changes: [{ file: RESTART, find: "return bounded ? null : UNBOUNDED;", replace: "return null;" }],
    suite: "unit",
    tests: TESTS.start,
  },
  {
    name: "bound-of-an-earlier-view",
    rule: "4, 7: what the members of an earlier view remember bounds nothing in this one",
    changes: [{ file: RESTART, find: "return earlier ? UNBOUNDED : forgotten;", replace: "return forgotten;" }],
    suite: "unit",
    tests: TESTS.start,
  },
  {
    name: "bound-below-the-view",
    rule: "4, 7: in the first instance of a view votes leave before there is any certificate in it",
    changes: [
      { file: RECOLLECTION, find: "Math.max(this.#context.firstInstance - 1, own", replace: "Math.max(0, own" },
    ],
    suite: "world",
  },
  {
    name: "state-lost-begins-fresh",
    rule: "4, 7: whose state was lost may have been in the next view before",
    changes: [
      {
        file: HOST,
        find: "applied.instance <= last ? regenciesIn(view.id, regency) : null",
        replace: "null",
      },
    ],
    suite: "unit",
    tests: TESTS.world,
  },
  {
    name: "own-link-leaves-the-journal-held",
    rule: "7: the last batch of a view is journaled, whatever others remember",
    changes: [{ file: CORE, find: "if (!this.#recollection.heard) this.#viewOver();", replace: "" }],
    suite: "unit",
    tests: TESTS.world,
  },
  {
    name: "client-waits-for-the-first-quorum",
    rule: "7, clients: connected is who has a quorum of the view in force",
    changes: [
      {
        file: "client/open.ts",
        find: '(consistency === "local" ? { need: 1 } : {})',
        replace: '{ need: consistency === "local" ? 1 : cluster.view.quorum }',
      },
    ],
    suite: "unit",
    tests: TESTS.client,
  },
  {
    name: "roots-signed-for-an-older-view",
    rule: "7: roots are signed for the view in force",
    changes: [
      {
        file: "server/archive/checkpoints.ts",
        find: "roots.map((root) => ({ ...root, signature: this.#signatureOf(root) }))",
        replace: "roots",
      },
    ],
    suite: "unit",
    tests: TESTS.world,
    redundant:
      "a root whose signature does not count is computed anew when a replica that fetches a state asks for one",
  },
];
