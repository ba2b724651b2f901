import { describe, expect, it } from "vitest";
import { decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import { hex } from "../../../protocol/bytes.ts";
import { type Identity, newIdentity } from "../../../protocol/identity.ts";
import {
  LINK_BATCH_BYTES_MAX,
  READY_AGE_INSTANCES_MAX,
  REPLICA_ID_MAX,
  REPLICAS_MAX,
} from "../../../protocol/limits.ts";
import { nextView, REFUSALS, type RefusalCode, reconfigurationResult } from "../../../protocol/next-view.ts";
import type { Change } from "../../../protocol/reconfiguration.ts";
import { decodeRequest } from "../../../protocol/request.ts";
import { type Member, memberOf, type View, viewOf } from "../../../protocol/view.ts";
import { addressOf, crypto, type Flaws, memberFrom, Reconfigured } from "./view-fixture.ts";

/** The view that `change` makes of `view`. Throws its refusal. */
function made(world: Reconfigured, view: View, change: Change, flaws: Flaws = {}): View {
  const next = nextView(crypto, view, world.batch(view, change, flaws));
  if ("refused" in next) throw new Error(next.refused);
  return next.view;
}

function refusal(world: Reconfigured, view: View, change: Change, flaws: Flaws = {}): RefusalCode | "accepted" {
  const next = nextView(crypto, view, world.batch(view, change, flaws));
  return "refused" in next ? next.refused : "accepted";
}

const sizes = ({ n, f, quorum }: View) => ({ n, f, quorum });
const ids = ({ members }: View) => members.map(({ id }) => id);

/** With keys as text. */
function shown(member: Member | undefined) {
  return member && { ...member, signKey: hex(member.signKey), boxKey: hex(member.boxKey) };
}

describe("what comes out of a change (section 7)", () => {
  it("grows from four replicas to seven, f in a step of its own, and shrinks back", () => {
    const world = new Reconfigured();
    let view = world.genesis;
    for (const id of [4, 5, 6]) view = made(world, view, world.adding(view, id));
    expect(sizes(view)).toEqual({ n: 7, f: 1, quorum: 5 });
    view = made(world, view, { type: "setF", f: 2 });
    expect(sizes(view)).toEqual({ n: 7, f: 2, quorum: 5 });
    expect(refusal(world, view, { type: "remove", id: 6 })).toBe("SIZES");
    view = made(world, view, { type: "setF", f: 1 });
    for (const id of [0, 5, 3]) view = made(world, view, { type: "remove", id });
    expect(sizes(view)).toEqual({ n: 4, f: 1, quorum: 3 });
    expect(ids(view)).toEqual([1, 2, 4, 6]);
    expect(view).toMatchObject({ id: 8, cluster: world.cluster, mode: "bft", idsBelow: 7 });
    expect(refusal(world, view, { type: "remove", id: 6 })).toBe("SIZES");
  });

  it("replaces every member, one by one, the leader among them; no id comes back", () => {
    const world = new Reconfigured();
    let view = world.genesis;
    for (const id of [0, 1, 2, 3]) view = made(world, view, world.replacing(view, id, id + 4));
    expect(ids(view)).toEqual([4, 5, 6, 7]);
    expect(sizes(view)).toEqual(sizes(world.genesis));
    for (const id of [0, 3, 7]) expect(refusal(world, view, world.adding(view, id))).toBe("ID_USED");
    view = made(world, view, { type: "setF", f: 0 });
    view = made(world, view, { type: "remove", id: 7 });
    expect(refusal(world, view, world.adding(view, 7))).toBe("ID_USED");
  });

  it("changes keys and addresses of one member, and nothing else of it", () => {
    const world = new Reconfigured();
    const { genesis } = world;
    const before = memberOf(genesis, 2) as Member;
    const change = world.rotating(genesis, 2) as Extract<Change, { type: "rotateKey" }>;
    const rotated = made(world, genesis, change);
    expect(shown(memberOf(rotated, 2))).toEqual(shown({ ...before, signKey: change.signKey, boxKey: change.boxKey }));
    expect(shown(memberOf(rotated, 2))).not.toEqual(shown(before));
    const address = { host: "replica-2.example", clientPort: 9000, peerPort: 9001, adminPort: 9002 };
    const moved = made(world, rotated, { type: "setAddress", id: 2, address });
    expect(shown(memberOf(moved, 2))).toEqual({ ...shown(memberOf(rotated, 2)), ...address });
    for (const id of [0, 1, 3]) expect(shown(memberOf(moved, id))).toEqual(shown(memberOf(genesis, id)));
    expect([moved.id, moved.idsBelow]).toEqual([2, 4]);
    expect(new Set([genesis.digest, rotated.digest, moved.digest]).size).toBe(3);
  });

  it("keeps rotation and administrators, and changes the latter only when told", () => {
    const world = new Reconfigured({ administrators: 3, threshold: 2 });
    const view = viewOf(crypto, { ...world.genesis, rotation: 64 });
    expect(made(world, view, { type: "setF", f: 0 })).toMatchObject({ rotation: 64, administratorThreshold: 2 });
    const keys = world.administrators.slice(1).map(({ signKey }) => signKey);
    const sorted = keys.sort(Buffer.compare);
    const next = made(world, view, { type: "administrators", keys: sorted, threshold: 1 });
    expect(next.administrators.map(hex)).toEqual(sorted.map(hex));
    expect(next.administratorThreshold).toBe(1);
    const gone = { administrators: world.administrators.slice(0, 1) };
    expect(refusal(world, next, { type: "setF", f: 0 }, gone)).toBe("ADMINISTRATORS");
    expect(refusal(world, next, { type: "setF", f: 0 }, { administrators: world.administrators.slice(1, 2) })).toBe(
      "accepted",
    );
  });
});

type Case = readonly [what: string, RefusalCode | "accepted", (world: Reconfigured, view: View) => [Change, Flaws?]];

const address = (id: number, changed: Partial<Member> = {}) => ({ ...addressOf(id), ...changed });

function adding(world: Reconfigured, view: View, changed: Partial<Member>): Change {
  const fresh = world.newMember(4);
  const identity = world.identities.get(4) as Identity;
  const member = { ...fresh, ...changed };
  return { type: "add", member, ready: world.ready(view, member, { identity }) };
}

/** An `add` whose READY is a lie. */
function unready(
  world: Reconfigured,
  view: View,
  lie: { member?: Partial<Member>; view?: View; instance?: number; claimed?: number; foreign?: true },
): Change {
  const member = world.newMember(4);
  const identity = lie.foreign ? newIdentity(crypto) : (world.identities.get(4) as Identity);
  const signed = { ...member, ...lie.member };
  const ready = world.ready(lie.view ?? view, signed, { instance: lie.instance ?? 50, identity });
  return { type: "add", member, ready: { ...ready, instance: lie.claimed ?? ready.instance } };
}

const lowOrder = new Uint8Array(32);
const setF: Change = { type: "setF", f: 0 };

const CASES: readonly Case[] = [
  ["as it should be", "accepted", () => [setF]],
  ["ordered at its not-after time", "accepted", () => [setF, { timestampMs: 2_000 }]],
  ["ordered a millisecond later", "EXPIRED", () => [setF, { timestampMs: 2_001 }]],
  ["made for another view", "OTHER_VIEW", () => [setF, { expected: crypto.sha256(new Uint8Array(1)) }]],
  ["another view comes out", "OTHER_RESULT", () => [setF, { resulting: crypto.sha256(new Uint8Array(2)) }]],
  ["signed by a stranger", "ADMINISTRATORS", () => [setF, { administrators: [newIdentity(crypto)] }]],
  ["a statement of another type", "FORM", () => [setF, { statement: { type: "grant" } }]],
  ["a body that is none", "FORM", () => [setF, { statement: { body: new Uint8Array(70) } }]],
  ["add: an id that was used", "ID_USED", (world, view) => [adding(world, view, { id: 3 })]],
  ["add: the highest id there is", "accepted", (world, view) => [adding(world, view, { id: REPLICA_ID_MAX })]],
  ["add: a member's sign key", "KEY_USED", (w, v) => [adding(w, v, { signKey: (v.members[1] as Member).signKey })]],
  ["add: a member's box key", "KEY_USED", (w, v) => [adding(w, v, { boxKey: (v.members[1] as Member).boxKey })]],
  ["add: a box key of low order", "KEY_WEAK", (world, view) => [adding(world, view, { boxKey: lowOrder })]],
  ["add: where another listens", "ADDRESS_USED", (w, v) => [adding(w, v, { peerPort: addressOf(2).adminPort })]],
  ["add: one port twice", "ADDRESS_USED", (w, v) => [adding(w, v, { clientPort: 99, peerPort: 99 })]],
  ["add: the same ports on another host", "accepted", (w, v) => [adding(w, v, address(2, { host: "other", id: 4 }))]],
  ["add: READY by another key", "READY_SIGNATURE", (world, view) => [unready(world, view, { foreign: true })]],
  ["add: READY for another id", "READY_SIGNATURE", (world, view) => [unready(world, view, { member: { id: 5 } })]],
  ["add: READY for another port", "READY_SIGNATURE", (w, v) => [unready(w, v, { member: { adminPort: 9 } })]],
  ["add: READY for another host", "READY_SIGNATURE", (w, v) => [unready(w, v, { member: { host: "x" } })]],
  ["add: READY with another box key", "READY_SIGNATURE", (w, v) => [unready(w, v, { member: { boxKey: lowOrder } })]],
  [
    "add: READY of an earlier view",
    "READY_SIGNATURE",
    (world, view) => [unready(world, view, { view: viewOf(crypto, { ...view, f: 0 }) })],
  ],
  ["add: READY for another instance", "READY_SIGNATURE", (world, view) => [unready(world, view, { claimed: 51 })]],
  ["add: READY from the future", "READY_AGE", (world, view) => [unready(world, view, { instance: 101 })]],
  [
    "add: READY as old as it may be",
    "accepted",
    (world, view) => [unready(world, view, { instance: 7 }), { instance: READY_AGE_INSTANCES_MAX + 7 }],
  ],
  [
    "add: READY one instance older",
    "READY_AGE",
    (world, view) => [unready(world, view, { instance: 7 }), { instance: READY_AGE_INSTANCES_MAX + 8 }],
  ],
  ["remove: a stranger", "NOT_A_MEMBER", () => [{ type: "remove", id: 9 }]],
  ["remove: fewer than 3f+1 would stay", "SIZES", () => [{ type: "remove", id: 0 }]],
  ["replace: a stranger", "NOT_A_MEMBER", (world, view) => [world.replacing(view, 9, 4)]],
  ["replace: by an id that was used", "ID_USED", (world, view) => [world.replacing(view, 0, 0)]],
  [
    "replace: at the address of the one that goes",
    "accepted",
    (world, view) => {
      const member = { ...world.newMember(4), ...addressOf(1) };
      return [{ type: "replace", id: 1, member, ready: world.ready(view, member) }];
    },
  ],
  [
    "replace: with the keys of the one that goes",
    "KEY_USED",
    (world, view) => {
      const member = { ...(memberOf(view, 1) as Member), ...addressOf(4), id: 4 };
      const ready = world.ready(view, member, { identity: world.identities.get(1) as Identity });
      return [{ type: "replace", id: 1, member, ready }];
    },
  ],
  ["set f: as it is", "NO_CHANGE", () => [{ type: "setF", f: 1 }]],
  ["set f: more than n stands", "SIZES", () => [{ type: "setF", f: 2 }]],
  ["set address: a stranger", "NOT_A_MEMBER", () => [{ type: "setAddress", id: 9, address: address(9) }]],
  ["set address: as it is", "NO_CHANGE", () => [{ type: "setAddress", id: 1, address: address(1) }]],
  [
    "set address: where another listens",
    "ADDRESS_USED",
    () => [{ type: "setAddress", id: 1, address: address(1, { clientPort: addressOf(0).clientPort }) }],
  ],
  ["rotate keys: a stranger", "NOT_A_MEMBER", (w, v) => [{ ...rotation(w, v), id: 9 } as Change]],
  ["rotate keys: the old sign key", "KEY_USED", (w, v) => [{ ...rotation(w, v), signKey: keysOf(v, 2).signKey }]],
  ["rotate keys: another's box key", "KEY_USED", (w, v) => [{ ...rotation(w, v), boxKey: keysOf(v, 3).boxKey }]],
  ["rotate keys: a box key of low order", "KEY_WEAK", (w, v) => [{ ...rotation(w, v), boxKey: lowOrder }]],
  ["rotate keys: READY for other keys", "READY_SIGNATURE", (w, v) => [{ ...rotation(w, v), ...freshKeys() }]],
  ["rotate keys: another's READY", "READY_SIGNATURE", (w, v) => [{ ...rotation(w, v), id: 1 }]],
  [
    "administrators: as they are",
    "NO_CHANGE",
    (_, view) => [{ type: "administrators", keys: view.administrators, threshold: 1 }],
  ],
  [
    "administrators: nobody needs to sign",
    "THRESHOLD",
    (_, view) => [{ type: "administrators", keys: view.administrators, threshold: 0 }],
  ],
  [
    "administrators: more signatures than keys",
    "THRESHOLD",
    (_, view) => [{ type: "administrators", keys: view.administrators, threshold: 2 }],
  ],
];

function keysOf(view: View, id: number): Member {
  return memberOf(view, id) as Member;
}

function freshKeys(): { signKey: Uint8Array; boxKey: Uint8Array } {
  const { signKey, boxKey } = newIdentity(crypto);
  return { signKey, boxKey };
}

function rotation(world: Reconfigured, view: View): Extract<Change, { type: "rotateKey" }> {
  return world.rotating(view, 2) as Extract<Change, { type: "rotateKey" }>;
}

describe("what is refused (section 7)", () => {
  it.each(CASES)("%s: %s", (_, expected, of) => {
    const world = new Reconfigured();
    const [change, flaws] = of(world, world.genesis);
    expect(refusal(world, world.genesis, change, flaws)).toBe(expected);
  });

  it("fewer signatures than the threshold, one that is false, one of an administrator that was", () => {
    const world = new Reconfigured({ administrators: 3, threshold: 2 });
    const [a, b, c] = world.administrators as [never, never, never];
    const { genesis } = world;
    expect(refusal(world, genesis, setF, { administrators: [a] })).toBe("ADMINISTRATORS");
    expect(refusal(world, genesis, setF, { administrators: [a, c] })).toBe("accepted");
    expect(refusal(world, genesis, setF, { administrators: [a, b, c] })).toBe("accepted");
    const stranger = newIdentity(crypto);
    expect(refusal(world, genesis, setF, { administrators: [a, b, stranger] })).toBe("ADMINISTRATORS");
    const command = world.command(genesis, setF);
    command[command.length - 1] = (command[command.length - 1] as number) ^ 1;
    const bytes = encodeBatch({ instance: 100, timestampMs: 1_000, requests: [world.request(command)] });
    expect(nextView(crypto, genesis, decodeBatch(crypto, bytes))).toEqual({ refused: "ADMINISTRATORS" });
  });

  it("the same change again: it was made for the view before", () => {
    const world = new Reconfigured();
    const batch = world.batch(world.genesis, setF);
    const next = nextView(crypto, world.genesis, batch) as { view: View };
    expect(nextView(crypto, next.view, batch)).toEqual({ refused: "OTHER_VIEW" });
  });

  it("a statement for another cluster with the same administrator", () => {
    const world = new Reconfigured();
    const other = viewOf(crypto, { ...world.genesis, cluster: crypto.sha256(new Uint8Array(8)) });
    const batch = world.batch(world.genesis, setF, { expected: other.digest });
    expect(nextView(crypto, other, batch)).toEqual({ refused: "ADMINISTRATORS" });
  });

  it("a batch that is not the RECONFIGURE alone, an ordered request, an empty batch", () => {
    const world = new Reconfigured();
    const { genesis } = world;
    const command = world.command(genesis, setF);
    const decoded = (bytes: Uint8Array) => decodeRequest(crypto, bytes);
    const administer = decoded(world.request(command));
    const place = { instance: 100, timestampMs: 1_000 };
    expect(nextView(crypto, genesis, { ...place, requests: [administer] })).toHaveProperty("view");
    for (const requests of [
      [],
      [decoded(world.request(command, "ordered"))],
      [administer, decoded(world.request(command))],
      [administer, decoded(world.request(new Uint8Array([1]), "ordered"))],
    ]) {
      expect(nextView(crypto, genesis, { ...place, requests })).toEqual({ refused: "FORM" });
    }
  });

  it("a request too large for a link, whatever it says", () => {
    const world = new Reconfigured();
    const fits = (bytes: number) => {
      const command = new Uint8Array(bytes);
      command.set(world.command(world.genesis, setF));
      const raw = encodeBatch({ instance: 100, timestampMs: 1_000, requests: [world.request(command)] });
      const next = nextView(crypto, world.genesis, decodeBatch(crypto, raw));
      return [raw.length, "refused" in next ? next.refused : "accepted"];
    };
    const [bytes] = fits(500) as [number, string];
    expect(fits(500 + LINK_BATCH_BYTES_MAX - bytes)).toEqual([LINK_BATCH_BYTES_MAX, "FORM"]);
    expect(fits(501 + LINK_BATCH_BYTES_MAX - bytes)).toEqual([LINK_BATCH_BYTES_MAX + 1, "SIZE"]);
  });

  it("a member more than a view can hold, an id beyond the last", () => {
    const world = new Reconfigured({ n: REPLICAS_MAX });
    expect(refusal(world, world.genesis, world.adding(world.genesis, REPLICAS_MAX))).toBe("SIZES");
    const small = new Reconfigured();
    const exhausted = viewOf(crypto, { ...small.genesis, idsBelow: REPLICA_ID_MAX + 1 });
    expect(refusal(small, exhausted, adding(small, exhausted, { id: REPLICA_ID_MAX }))).toBe("ID_USED");
    expect(refusal(small, small.genesis, adding(small, small.genesis, { id: REPLICA_ID_MAX + 1 }))).toBe("FORM");
  });

  it("the only member cannot go", () => {
    const world = new Reconfigured({ n: 1 });
    expect(refusal(world, world.genesis, { type: "remove", id: 0 })).toBe("SIZES");
  });
});

describe("what else goes with it", () => {
  it("a batch with a RECONFIGURE and anything else is malformed, alike for everybody", () => {
    const world = new Reconfigured();
    const reconfigure = world.request(world.command(world.genesis, setF));
    const put = world.request(new Uint8Array([1]), "ordered");
    const place = { instance: 100, timestampMs: 1_000 };
    for (const requests of [
      [reconfigure, put],
      [put, reconfigure],
      [reconfigure, world.request(world.command(world.genesis, setF))],
    ]) {
      expect(() => decodeBatch(crypto, encodeBatch({ ...place, requests }))).toThrow("BATCH_RECONFIGURE");
    }
    expect(decodeBatch(crypto, encodeBatch({ ...place, requests: [reconfigure] })).requests).toHaveLength(1);
    expect(decodeBatch(crypto, encodeBatch({ ...place, requests: [put] })).requests).toHaveLength(1);
  });

  it("who asked for it is told what became of it", () => {
    expect(reconfigurationResult({ view: new Reconfigured().genesis })).toEqual({ type: "executed" });
    const refused = reconfigurationResult({ refused: "SIZES" });
    expect(refused).toEqual({ type: "refused", code: "REFUSED", message: `SIZES: ${REFUSALS.SIZES}` });
    expect(reconfigurationResult({ refused: "ADMINISTRATORS" })).toMatchObject({ code: "NOT_ADMINISTRATOR" });
  });

  it("the digest of a view covers which ids were used", () => {
    const { genesis } = new Reconfigured();
    expect(genesis.idsBelow).toBe(4);
    expect(viewOf(crypto, { ...genesis, idsBelow: 5 }).digest).not.toBe(genesis.digest);
    expect(viewOf(crypto, { ...genesis }).digest).toBe(genesis.digest);
    const identity = newIdentity(crypto);
    expect(viewOf(crypto, { ...genesis, members: [memberFrom(0, identity)], f: 0 }).n).toBe(1);
  });
});
