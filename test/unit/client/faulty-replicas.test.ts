/** Property: up to f replicas that do anything at all never change an answer (docs/protocol.md sections 1 and 3). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UnknownOutcomeError } from "../../../client/errors.ts";
import { REPLY_STATUSES } from "../../../protocol/client-frames.ts";
import { encodeResult, encodeResults } from "../../../protocol/commands.ts";
import { type Answer, type Behaviour, behaviours, crypto, type FakeCluster } from "./fake-replicas.ts";
import { answerOf, connected, outcomeOf } from "./fixture.ts";

const forged = encodeResults([
  encodeResult({
    type: "found",
    value: new Uint8Array([108, 105, 101]),
    createRevision: 1,
    modRevision: 1,
    version: 1,
  }),
]);

/** One thing a liar may answer; colluding liars answer the same. */
const lie: fc.Arbitrary<(honest: Answer) => Answer | Answer[] | null> = fc.oneof(
  fc.constant(behaviours.silent),
  fc.constant((honest: Answer) => honest),
  fc.constant(behaviours.wrongResult),
  fc.constant(behaviours.wrongMac),
  fc.constant(behaviours.wrongBody),
  fc.constant(behaviours.withholding),
  fc.constant(behaviours.gone),
  fc.constant((honest: Answer) => ({ ...honest, view: 7 })),
  fc.constant((honest: Answer) => [honest, behaviours.wrongResult(honest), honest]),
  fc.constant((honest: Answer) => ({
    ...honest,
    body: "full" as const,
    result: forged,
    resultDigest: crypto.sha256(forged),
  })),
  fc.integer({ min: 1, max: 3_000 }).map(behaviours.delayed),
  fc
    .tuple(fc.constantFrom(...REPLY_STATUSES), fc.uint8Array({ maxLength: 16 }))
    .map(([status, result]) => behaviours.says(status, result)),
  fc.nat({ max: 2 ** 40 }).map((watermark) => behaviours.expired(watermark)),
);

function corrupt(
  cluster: FakeCluster,
  liars: readonly number[],
  lies: readonly ((honest: Answer) => ReturnType<Behaviour>)[],
) {
  for (const id of liars) {
    let turn = 0;
    cluster.replica(id).behaviour = (honest) => (lies[turn++ % lies.length] ?? behaviours.silent)(honest);
  }
}

const sizes = fc.constantFrom({ n: 4, f: 1 }, { n: 5, f: 1 }, { n: 7, f: 2 });

describe("f faulty replicas", () => {
  test("never change an answer, and never keep it from coming", async () => {
    const property = fc.asyncProperty(
      sizes,
      fc.array(lie, { minLength: 1, maxLength: 5 }),
      fc.nat(),
      fc.array(fc.tuple(fc.nat({ max: 3 }), fc.constantFrom("put", "cas", "get", "orderedGet", "delete", "range")), {
        minLength: 1,
        maxLength: 8,
      }),
      fc.boolean(),
      async (size, lies, first, steps, large) => {
        const { clock, cluster, kv } = await connected({ ...size, timeoutMs: 60_000 });
        corrupt(
          cluster,
          Array.from({ length: size.f }, (_, at) => (first + at) % size.n),
          lies,
        );
        const model = new Map<string, { value: string; revision: bigint }>();
        let revision = 0n;
        for (const [at, [which, step]] of steps.entries()) {
          const key = `k${which}`;
          const held = model.get(key);
          const value = `${at}${large ? "x".repeat(3_000) : ""}`;
          if (step === "put") {
            const written = await answerOf(clock, kv.put(key, value), 60_000);
            expect(written.revision).toBe(++revision);
            model.set(key, { value, revision });
          } else if (step === "cas") {
            const expect_ = at % 2 === 0 ? (held?.revision ?? ("absent" as const)) : 999n;
            const swap = await answerOf(clock, kv.cas(key, { expect: expect_, value }), 60_000);
            expect(swap.swapped).toBe(at % 2 === 0);
            if (swap.swapped) model.set(key, { value, revision: ++revision });
            expect(swap.revision).toBe(model.get(key)?.revision ?? 0n);
          } else if (step === "delete") {
            const deleted = await answerOf(clock, kv.delete(key), 60_000);
            expect(deleted.deleted).toBe(held !== undefined);
            if (model.delete(key)) revision++;
          } else if (step === "range") {
            const page = await answerOf(clock, kv.page({ prefix: "k" }), 60_000);
            const entries = page.entries.map((entry) => [entry.key, entry.value]);
            const held = [...model].map(([name, entry]) => [name, entry.value]);
            expect(entries).toEqual(held.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1)));
          } else {
            const entry = await answerOf(clock, kv.get(key, { ordered: step === "orderedGet" }), 60_000);
            expect(entry && { value: entry.value, revision: entry.modRevision }).toEqual(held ?? null);
          }
        }
        await answerOf(clock, kv.close());
        await clock.advance(3_000);
        expect(cluster.openChannels).toBe(0);
        expect(clock.timers).toBe(0);
      },
    );
    await fc.assert(property, { numRuns: 80 });
  });

  test("f + 1 colluding liars are one too many for n = 4: the fake is able to deceive", async () => {
    const { clock, cluster, kv } = await connected();
    const lies = (honest: Answer) => ({
      ...honest,
      body: "full" as const,
      result: forged,
      resultDigest: crypto.sha256(forged),
    });
    for (const id of [0, 1, 2]) cluster.replica(id).behaviour = lies;
    expect((await answerOf(clock, kv.get("k")))?.value).toBe("lie");
  });

  test("a write that ends in an error was either surely not executed or is said to be unknown", async () => {
    const property = fc.asyncProperty(
      fc.array(fc.array(lie, { minLength: 1, maxLength: 3 }), { minLength: 4, maxLength: 4 }),
      async (lies) => {
        const { clock, cluster, kv } = await connected({ timeoutMs: 1_500 });
        // Every replica fails to answer in some way, none of them forges.
        for (const [id, mine] of lies.entries()) {
          let turn = 0;
          cluster.replica(id).behaviour = (honest, request) => {
            const said = (mine[turn++ % mine.length] ?? behaviours.silent)(honest);
            const harmless = request.kind === "ordered" && said !== null && !Array.isArray(said) && said.delayMs;
            return harmless ? said : null;
          };
        }
        const outcome = await outcomeOf(clock, kv.put("k", "v"), 1_600);
        if ("error" in outcome) expect(outcome.error).toBeInstanceOf(UnknownOutcomeError);
        else expect(cluster.executed).toHaveLength(1);
        for (const replica of cluster.replicas) replica.behaviour = null;
        if ("error" in outcome && outcome.error instanceof UnknownOutcomeError) {
          const asked = await answerOf(clock, kv.outcome(outcome.error.requestId), 10_000);
          expect(asked.type).toBe(cluster.executed.length === 1 ? "replied" : "cancelled");
        }
        await answerOf(clock, kv.close());
      },
    );
    await fc.assert(property, { numRuns: 40 });
  });
});
