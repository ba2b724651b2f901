import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Metrics } from "../../../server/network/metrics.ts";

describe("metrics", () => {
  let metrics: Metrics;
  beforeEach(() => {
    metrics = new Metrics();
  });
  afterEach(() => metrics.close());

  const lines = async (): Promise<string[]> =>
    (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));

  test("numbers set on the way are what is published", async () => {
    Object.assign(metrics, { view: 2, regency: 3, isLeader: true, instancesDecided: 10, instancesExecuted: 9 });
    Object.assign(metrics, { storeRevision: 77, pendingRequests: 4, pendingBytes: 400, clientConnections: 6 });
    metrics.heldProposals = 5;
    const text = await lines();
    for (const line of [
      "quorate_view 2",
      "quorate_regency 3",
      "quorate_is_leader 1",
      "quorate_instances_decided 10",
      "quorate_instances_executed 9",
      "quorate_store_revision 77",
      "quorate_pending_requests 4",
      "quorate_pending_bytes 400",
      "quorate_client_connections 6",
      "quorate_held_proposals_total 5",
    ]) {
      expect(text).toContain(line);
    }
  });

  test("counters by label do not grow by being read", async () => {
    metrics.countRequest("OK");
    metrics.countRequest("OK", 4);
    metrics.countRequest("BUSY");
    metrics.countFetch("batch");
    metrics.countRejected({ source: "link", from: 2, code: "LINK_MAC" });
    metrics.countRejected({ source: "link", from: 2, code: "LINK_MAC" });
    metrics.countRejected({ source: "gateway", from: null, code: "TEXT_FRAME" });
    metrics.setConnected(1, true);
    metrics.setConnected(2, false);
    metrics.setDiskBytes("journal", 1_000);
    await lines();
    const text = await lines();
    for (const line of [
      'quorate_requests_total{result="OK"} 5',
      'quorate_requests_total{result="BUSY"} 1',
      'quorate_fetches_total{kind="batch"} 1',
      'quorate_rejected_total{source="link",from="2",code="LINK_MAC"} 2',
      'quorate_rejected_total{source="gateway",from="unknown",code="TEXT_FRAME"} 1',
      'quorate_replica_connected{replica="1"} 1',
      'quorate_replica_connected{replica="2"} 0',
      'quorate_disk_bytes{store="journal"} 1000',
    ]) {
      expect(text).toContain(line);
    }
  });

  test("histograms of batches and phases, and the default metrics with event loop lag", async () => {
    metrics.observeBatch({ requests: 100, bytes: 20_000 });
    metrics.observePhase("journal", 0.002);
    const text = await lines();
    expect(text).toContain("quorate_batch_requests_sum 100");
    expect(text).toContain("quorate_batch_bytes_sum 20000");
    expect(text).toContain('quorate_phase_seconds_bucket{le="0.0025",phase="journal"} 1');
    expect(text).toContain('quorate_phase_seconds_bucket{le="0.001",phase="journal"} 0');
    expect(text.some((line) => line.startsWith("quorate_nodejs_eventloop_lag_seconds"))).toBe(true);
  });

  test("labels an attacker can vary are bounded, and every rejection is still counted", async () => {
    for (let index = 0; index < 3_000; index++) {
      metrics.countRejected({ source: "link", from: index, code: "LINK_MAC" });
    }
    const rejected = (await lines()).filter((line) => line.startsWith("quorate_rejected_total"));
    expect(rejected.length).toBe(1_025);
    expect(rejected.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0)).toBe(3_000);
  });

  test("two replicas in one process keep their numbers apart", async () => {
    const other = new Metrics();
    other.view = 9;
    expect(await lines()).toContain("quorate_view 0");
    other.close();
  });
});
