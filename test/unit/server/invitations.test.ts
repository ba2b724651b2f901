/** Who may be served before it is a member (docs/protocol.md section 7). */
import { expect, test } from "vitest";
import { encodeSignedStatement, signStatement } from "../../../protocol/administration.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import { encodeInvitation } from "../../../protocol/reconfiguration.ts";
import type { Member } from "../../../protocol/view.ts";
import { Invitations } from "../../../server/invitations.ts";
import { crypto, Reconfigured } from "../protocol/view-fixture.ts";

const NOW_MS = 1_000_000;

function worldOfInvitations() {
  const world = new Reconfigured();
  const { genesis: view } = world;
  const member = (id: number): Member => {
    const { signKey, boxKey } = newIdentity(crypto);
    const keys = { signKey: Buffer.from(signKey), boxKey: Buffer.from(boxKey) };
    return { id, ...keys, host: "127.0.0.1", clientPort: 1, peerPort: 2, adminPort: 3 };
  };
  const invitation = (
    invited: Member,
    { number = 1, notAfterMs = NOW_MS + 1, signers = world.administrators } = {},
  ) => {
    const statement = { type: "invite", number, notAfterMs, body: encodeInvitation(invited) } as const;
    const signing = signers.map(({ signKey, signSeed }) => ({ signKey, sign: crypto.signer(signSeed) }));
    return encodeSignedStatement(signStatement(view.cluster, statement, signing));
  };
  const invitations = new Invitations(crypto, view.cluster);
  const take = (bytes: Uint8Array): Member | null => invitations.take(bytes, view, NOW_MS);
  return { invitations, member, invitation, take };
}

test("whom administrators invite is let in, for as long as they say", () => {
  const { invitations, member, invitation, take } = worldOfInvitations();
  const guest = member(4);
  expect(take(invitation(guest))).toEqual(guest);
  expect(invitations.at(NOW_MS + 1)).toEqual([guest]);
  expect(invitations.at(NOW_MS + 2)).toEqual([]);
});

test("a stranger's invitation, one that is over, one of a member's id and no invitation at all are none", () => {
  const { invitations, member, invitation, take } = worldOfInvitations();
  expect(take(invitation(member(4), { signers: [newIdentity(crypto)] }))).toBe(null);
  expect(take(invitation(member(4), { notAfterMs: NOW_MS - 1 }))).toBe(null);
  expect(take(invitation(member(3)))).toBe(null);
  expect(take(Buffer.from("come in"))).toBe(null);
  expect(invitations.at(NOW_MS)).toEqual([]);
});

test("a later one for the same id counts, and an earlier one said again does not undo it", () => {
  const { invitations, member, invitation, take } = worldOfInvitations();
  const [first, second] = [member(4), member(4)];
  const earlier = invitation(first, { number: 1 });
  expect(take(earlier)).toEqual(first);
  expect(take(invitation(second, { number: 2 }))).toEqual(second);
  expect(take(earlier)).toBe(null);
  expect(invitations.at(NOW_MS)).toEqual([second]);
});
