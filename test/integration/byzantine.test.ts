/** A lying replica changes no client's answer (docs/protocol.md section 1): f = 1 of four, real processes, real keys. */
import { expect, test } from "vitest";
import type { Kv } from "../../client/index.ts";
import { PATIENT, TestCluster, until } from "./cluster.ts";
import { Load } from "./load.ts";

const LIAR = new URL("./lying-replica.ts", import.meta.url);

/** Raises a counter by compare-and-swap until told to stop; how often it did. */
async function count(kv: Kv<string>, key: string, going: () => boolean): Promise<number> {
  let raised = 0;
  while (going()) {
    const entry = await kv.get(key);
    const value = String(Number(entry?.value ?? "0") + 1);
    const { swapped } = await kv.cas(key, { expect: entry?.modRevision ?? "absent", value });
    if (swapped) raised++;
  }
  return raised;
}

for (const liar of [3, 1]) {
  test(`replica ${liar} lies about everything: every answer is right, and a correct server takes its place`, async () => {
    const cluster = await TestCluster.create(PATIENT);
    const correct = cluster.ids.filter((id) => id !== liar);
    await Promise.all(correct.map((replica) => cluster.startOne(replica)));
    await cluster.startOne(liar, { program: LIAR });
    const connections = [await cluster.connect(), await cluster.connect()];
    const load = new Load({ connections, writers: 10, readers: 4, strict: true, putTimeoutMs: 30_000 });
    let going = true;
    const counts = connections.map((kv) => count(kv, "counter", () => going));
    await load.progress(500, 60_000);
    going = false;
    const raised = (await Promise.all(counts)).reduce((sum, own) => sum + own, 0);
    const reader = await cluster.connect();
    expect((await reader.get("counter"))?.value).toBe(String(raised));
    expect((await reader.get("counter", { ordered: true }))?.value).toBe(String(raised));
    await expectItWasNoticed(cluster, { liar, correct });

    expect(await cluster.kill(liar, "SIGTERM")).toEqual({ code: 0, signal: null });
    await cluster.startOne(liar);
    // Its votes for instances then ahead still stand: let those pass.
    await load.progress(200, 60_000);
    await load.stop();
    await cluster.agreement();
    // What it may have said as a liar it does not say again: only then is it the third of a quorum.
    await until(async () => ((await cluster.status(liar)).state === "voting" ? true : null), {
      what: `replica ${liar} to vote`,
    });
    await cluster.kill(correct.at(-1) as number, "SIGKILL");
    await load.verify(reader);
    const seen: string[] = [];
    for await (const { key } of reader.range({ keysOnly: true })) seen.push(key);
    expect(seen).toEqual(["counter", ...Array.from({ length: 10 }, (_, index) => `load/000${index}`)]);
  });
}

test("a replica that lags learns the right history although another lies about heights, batches and proofs", async () => {
  const cluster = await TestCluster.create();
  const [liar, late] = [1, 3];
  await Promise.all([0, 2, late].map((replica) => cluster.startOne(replica)));
  await cluster.startOne(liar, { program: LIAR, args: ["--lies", "status,history"] });
  const load = new Load({ connections: [await cluster.connect()], writers: 10, strict: true, putTimeoutMs: 30_000 });
  for (let round = 0; round < 3; round++) {
    await load.progress(100, 60_000);
    await cluster.kill(late, "SIGKILL");
    await load.progress(200, 60_000);
    const target = (await cluster.status(0)).executed;
    await cluster.startOne(late);
    await until(async () => ((await cluster.status(late)).executed >= target ? true : null), {
      what: `replica ${late} to learn instance ${target}`,
    });
  }
  await load.stop();
  await cluster.agreement([0, 2, late]);
  await load.verify(await cluster.connect());
});

/** The lies are counted where they arrive, and make no correct replica unready. */
async function expectItWasNoticed(
  cluster: TestCluster,
  { liar, correct }: { liar: number; correct: readonly number[] },
): Promise<void> {
  for (const replica of correct) {
    await until(
      async () => ((await cluster.metric(replica, "quorate_rejected_total", `from="${liar}"`)) > 0 ? true : null),
      { what: `replica ${replica} to count a fault of replica ${liar}` },
    );
    for (const fault of await cluster.faults(replica)) {
      if (fault.from !== String(liar)) expect(fault, `a correct replica is blamed by ${replica}`).toBeNull();
    }
    let said = "";
    await until(
      async () => {
        const { code, text } = await cluster.http(replica, "/readyz?verbose");
        said = text;
        return code === 200 ? true : null;
      },
      { what: () => `replica ${replica} to be ready: ${said}` },
    );
  }
}
