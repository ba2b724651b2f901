import { describe, expect, it } from "vitest";
import type { Certificate, HistoryProof } from "../../../protocol/messages.ts";
import { LogServer } from "../../../server/archive/log-server.ts";
import { MemoryJournal } from "./fixture.ts";

const LAST = 10;

/** A log whose instances have certificates as said; only those of `valid` hold. */
async function proofOf(range: { from: number; upTo: number }, certified: readonly number[], valid: readonly number[]) {
  const journal = new MemoryJournal();
  journal.grow(LAST);
  journal.records = journal.records.map((record) => {
    const { view, instance, regency, digest } = record;
    const certificate: Certificate = { view, instance, regency, digest, votes: [] };
    return certified.includes(instance) ? { ...record, certificate } : record;
  });
  journal.digestAt = async (instance) =>
    journal.records.find((one) => one.instance === instance)?.digest ?? journal.base.digest;
  const server = new LogServer(journal, {
    place: () => ({ view: 0, regency: 0 }),
    send: () => undefined,
    holds: async ({ instance }) => valid.includes(instance),
    failed: (error) => {
      throw error;
    },
  });
  const { batches, proof } = await server.segment(range.from, range.upTo);
  expect(batches.length).toBe(range.upTo - range.from + 1);
  return placeOf(proof, journal);
}

function placeOf(proof: HistoryProof | null, { records }: MemoryJournal) {
  if (!proof) return null;
  const { instance } = proof.certificate;
  const linked = records.slice(instance - proof.links.length, instance);
  expect(proof.links).toEqual(linked.map((record) => record.batchDigest));
  return { instance, links: proof.links.length };
}

describe("4.7: the proof of a piece of the log", () => {
  it("is the nearest certificate beyond it", async () => {
    expect(await proofOf({ from: 2, upTo: 4 }, [3, 4, 6, 9], [3, 4, 6, 9])).toEqual({ instance: 6, links: 2 });
  });

  it("is the highest one in it where there is none beyond", async () => {
    expect(await proofOf({ from: 2, upTo: 10 }, [3, 4], [3, 4])).toEqual({ instance: 4, links: 0 });
  });

  it("is never one that does not hold: the next one beyond, then the next one below", async () => {
    expect(await proofOf({ from: 2, upTo: 4 }, [3, 4, 6, 9], [3, 4, 9])).toEqual({ instance: 9, links: 5 });
    expect(await proofOf({ from: 2, upTo: 4 }, [3, 4, 6, 9], [3])).toEqual({ instance: 3, links: 0 });
  });

  it("is missing where none holds", async () => {
    expect(await proofOf({ from: 2, upTo: 4 }, [3, 4, 6, 9], [])).toBeNull();
  });
});
