import { describe, expect, it } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { certificateChecks } from "../../../protocol/certificate.ts";
import { type Certificate, writeStatement } from "../../../protocol/messages.ts";
import type { View } from "../../../protocol/view.ts";
import { signerOf } from "../../simulation/core-cluster.ts";
import { coreView } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

const PLACE = { view: 0, regency: 3, instance: 5, digest: fastCrypto.sha256(utf8("a batch")) };

function certificate(view: View, voters: readonly number[]): Certificate {
  const statement = writeStatement(view.cluster, PLACE);
  return { ...PLACE, votes: voters.map((replica) => ({ replica, signature: signerOf(replica)(statement) })) };
}

function isValid(view: View, offered: Certificate): boolean {
  const checks = certificateChecks(view, offered);
  return checks?.every((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
}

function firstOf(count: number): number[] {
  return Array.from({ length: count }, (_, id) => id);
}

describe("a write certificate is Q distinct members' signatures on one statement", () => {
  for (const n of [4, 5, 6, 7, 10]) {
    const view = coreView(n);
    it(`n = ${n}: it takes ${view.quorum}`, () => {
      for (let count = 0; count <= n; count++) {
        expect(isValid(view, certificate(view, firstOf(count))), `${count} voters`).toBe(count >= view.quorum);
      }
    });
  }

  const view = coreView(4);
  const voters: readonly (readonly [string, readonly number[]])[] = [
    ["the same voter again", [0, 1, 1]],
    ["the same voter again beside Q others", [0, 1, 2, 2]],
    ["a stranger among them", [0, 1, 9]],
    ["a stranger beside Q members", [0, 1, 2, 9]],
  ];
  for (const [what, ids] of voters) {
    it(`${what}: none`, () => {
      expect(certificateChecks(view, certificate(view, ids))).toBeNull();
    });
  }

  const good = certificate(view, [0, 2, 3]);
  const borrowed: readonly (readonly [string, Certificate])[] = [
    ["instance", { ...good, instance: 6 }],
    ["regency", { ...good, regency: 4 }],
    ["batch", { ...good, digest: fastCrypto.sha256(utf8("another")) }],
    ["view", { ...good, view: 1 }],
  ];
  for (const [what, offered] of borrowed) {
    it(`presented for another ${what}: none`, () => {
      expect(isValid(view, good)).toBe(true);
      expect(isValid(view, offered)).toBe(false);
    });
  }

  it("of another view, truly signed for it: none in this one", () => {
    const place = { ...PLACE, view: 1 };
    const votes = [0, 2, 3].map((id) => ({
      replica: id,
      signature: signerOf(id)(writeStatement(view.cluster, place)),
    }));
    expect(isValid({ ...view, id: 1 }, { ...place, votes })).toBe(true);
    expect(isValid(view, { ...place, votes })).toBe(false);
  });

  it("presented to another cluster: none", () => {
    expect(isValid({ ...view, cluster: fastCrypto.sha256(utf8("another cluster")) }, good)).toBe(false);
  });

  it("each signature is its voter's own", () => {
    const [first, second, third] = good.votes as [Vote, Vote, Vote];
    const swapped = [{ ...first, signature: second.signature }, { ...second, signature: first.signature }, third];
    expect(isValid(view, { ...good, votes: swapped })).toBe(false);
  });
});

type Vote = Certificate["votes"][number];
