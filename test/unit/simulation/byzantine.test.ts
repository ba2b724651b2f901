import { describe, expect, it } from "vitest";
import { encodeBatch } from "../../../protocol/batch.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { certificateChecks } from "../../../protocol/certificate.ts";
import { encodeMessage, type Message, type StopData } from "../../../protocol/messages.ts";
import { encodeRequest } from "../../../protocol/request.ts";
import { attackerOf, TACTICS, type TacticName } from "../../simulation/byzantine/attacker.ts";
import { Guild } from "../../simulation/byzantine/guild.ts";
import { mutated } from "../../simulation/byzantine/mutate.ts";
import type { Attacker, Outgoing } from "../../simulation/contract.ts";
import { CLUSTER, coreView, GENESIS, signerOf } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";
import { seeded } from "../../simulation/random.ts";

const view = coreView(4);
const place = { view: 0, regency: 1, instance: 1 };
const signature = new Uint8Array(64);
const batch = encodeBatch({ instance: 1, timestampMs: 7, requests: [] });
const digest = fastCrypto.sha256(utf8("digest"));
const request = encodeRequest({
  cluster: CLUSTER,
  client: digest,
  session: 1,
  sequence: 1,
  ackedBelow: 1,
  kind: "ordered",
  deadlineMs: 0,
  commands: [utf8("command")],
});
const withRequest = encodeBatch({ instance: 1, timestampMs: 8, requests: [request] });

/** A guild of replica 3 alone, which has heard of the genesis. */
function guildOf3(): Guild {
  const guild = new Guild(view, fastCrypto);
  guild.join(3, signerOf(3));
  guild.see(0, { type: "STATUS", view: 0, regency: 0, decided: 0, digest: GENESIS, abstainingUntil: 0, signature });
  return guild;
}

function liar(name: TacticName, seed = 1): { attacker: Attacker; guild: Guild } {
  const guild = guildOf3();
  const character = { rates: new Map([[name, 1]]), consistency: 0 };
  return { guild, attacker: attackerOf({ self: 3, sign: signerOf(3), guild, random: seeded(seed), character }) };
}

function sentBy(attacker: Attacker, message: Message): Outgoing[] {
  return [0, 1, 2].flatMap((to) => [...attacker.rewrite({ to, message }, 0)]);
}

describe("mutation of one field", () => {
  it("changes something, and whoever receives it can decode it", () => {
    const certificate = { ...place, digest, votes: [0, 1, 2].map((replica) => ({ replica, signature })) };
    const data: StopData = { replica: 1, record: certificate, signature };
    const messages: Message[] = [
      { type: "PROPOSE", ...place, batch, envelopes: [] },
      { type: "WRITE", ...place, digest, signature },
      { type: "STATUS", view: 0, regency: 0, decided: 3, digest, abstainingUntil: 0, signature },
      { type: "STOP", view: 0, regency: 2, named: [digest] },
      {
        type: "SYNC",
        view: 0,
        regency: 2,
        stopData: [data, { ...data, replica: 2, record: null }],
        batch,
        envelopes: [],
      },
    ];
    const random = seeded(3);
    for (const message of messages) {
      const before = Buffer.from(encodeMessage(message)).toString("hex");
      const results = new Set<string>();
      for (let round = 0; round < 200; round++) {
        const lie = mutated(message, random);
        if (lie) results.add(Buffer.from(encodeMessage(lie)).toString("hex"));
      }
      results.delete(before);
      expect(results.size).toBeGreaterThan(10);
      expect(Buffer.from(encodeMessage(message)).toString("hex")).toBe(before);
    }
  });
});

describe("what liars do", () => {
  it("an equivocating leader shows two valid batches, and votes with each side for its own", () => {
    const { attacker, guild } = liar("equivocation");
    const proposals = sentBy(attacker, { type: "PROPOSE", view: 0, regency: 3, instance: 1, batch, envelopes: [] });
    const shown = proposals.map(({ message }) =>
      message.type === "PROPOSE" ? guild.learnBatch(message.batch, [])?.digest : null,
    );
    expect(new Set(shown).size).toBe(2);
    const own = guild.learnBatch(batch, [])?.digest ?? "";
    const writes = sentBy(attacker, guild.write(3, { regency: 3, instance: 1 }, own));
    expect(writes.map(({ message }) => ("digest" in message ? message.digest : null))).toEqual(shown);
  });

  it("the guild's own votes complete a certificate that nobody else has", () => {
    const guild = guildOf3();
    const before = guild.certify(place, digest);
    expect(before).toBeNull();
    for (const from of [0, 1]) {
      const signed = new Guild(view, fastCrypto);
      signed.join(from, signerOf(from));
      guild.see(from, signed.write(from, place, digest));
    }
    const certificate = guild.certify(place, digest);
    const checks = certificate && certificateChecks(view, certificate);
    expect(checks?.length).toBe(view.quorum);
    expect(checks?.every((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature))).toBe(true);
  });

  const recoveryMessages: readonly Message[] = [
    {
      type: "OFFER",
      view: 0,
      regency: 0,
      wanted: 0,
      decided: 9,
      newest: { ...place, digest, votes: [] },
      yourWrite: { regency: 0, instance: 1, digest, signature },
      logFirst: 1,
      logBytes: 1_000,
      checkpoints: [{ instance: 5, digest, timestampMs: 1, chunks: 1, bytes: 100, manifest: digest }],
      roots: [{ instance: 5, root: digest, signature }],
    },
    { type: "MANIFEST", view: 0, regency: 0, instance: 5, root: digest, manifest: new Uint8Array(36) },
    { type: "CHUNK", view: 0, regency: 0, instance: 5, root: digest, index: 0, chunk: new Uint8Array(40) },
    { type: "ROOT", view: 0, regency: 0, instance: 5, root: digest, signature },
  ];

  it("each lie leaves its mark: something else leaves, or something leaves unasked", () => {
    for (const name of Object.keys(TACTICS) as TacticName[]) {
      let marks = 0;
      for (let seed = 1; seed <= 20; seed++) {
        const { attacker, guild } = liar(name, seed);
        guild.learnBatch(batch, []);
        const messages: Message[] = [
          { type: "PROPOSE", view: 0, regency: 3, instance: 1, batch: withRequest, envelopes: [utf8("envelope")] },
          guild.write(3, place, digest),
          { type: "ACCEPT", ...place, digest },
          { type: "WRITE", ...place, instance: 2, digest, signature },
          guild.status(3, { view: 0, regency: 1, decided: 2, digest, abstainingUntil: 0 }),
          { type: "STOPDATA", view: 0, regency: 2, record: { ...place, digest, votes: [] }, signature },
          { type: "HISTORY", view: 0, regency: 0, from: 1, previous: digest, batches: [batch], proof: null },
          ...recoveryMessages,
        ];
        for (const from of [0, 1, 2]) attacker.observe(from, { type: "WRITE", ...place, digest, signature });
        for (const data of [0, 1])
          attacker.observe(data, { type: "STOPDATA", view: 0, regency: 3, record: null, signature });
        for (const message of messages) {
          const [sent, ...more] = attacker.rewrite({ to: 1, message }, 0);
          if (sent?.message !== message || more.length > 0 || sent.delayUs) marks++;
        }
        marks += attacker.idle(0).length;
      }
      expect(marks, name).toBeGreaterThan(0);
    }
  });
});
