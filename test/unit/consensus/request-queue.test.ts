import { describe, expect, it } from "vitest";
import { type Digest, latin1, utf8 } from "../../../protocol/bytes.ts";
import {
  FORWARDED_BYTES_PER_CLIENT_MAX,
  FORWARDED_BYTES_RESERVE,
  PENDING_BYTES_MAX,
  PENDING_BYTES_PER_CLIENT_MAX,
  PENDING_PER_CLIENT_MAX,
  RESERVED_PER_CLIENT_MAX,
} from "../../../protocol/limits.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";
import { requestCost } from "../../../server/consensus/admission.ts";
import type { Source } from "../../../server/consensus/client-queue.ts";
import { type ExecutedBatch, NO_COSTS } from "../../../server/consensus/debts.ts";
import { RequestQueue } from "../../../server/consensus/request-queue.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";
import { clientOf, requestOf } from "./queue-model.ts";

const CLUSTER = latin1(new Uint8Array(32).fill(7)) as Digest;
const ENVELOPE = new Uint8Array(10);
const LIMITS = { requestsMax: 100, bytesMax: 1_000_000, overheadBytes: 4, nowUs: 0 };

function request(sequence: number, name = "client"): Request {
  const fields = { session: 1, sequence, ackedBelow: 1, kind: "ordered" as const, deadlineMs: 0 };
  const client = fastCrypto.sha256(utf8(name));
  const bytes = encodeRequest({ cluster: CLUSTER, client, ...fields, commands: [utf8("command")] });
  return decodeRequest(fastCrypto, bytes);
}

function batchOf(...requests: Request[]): ExecutedBatch {
  return { requests, costs: NO_COSTS, timestampMs: 0 };
}

describe("request queue (section 4.1 and 8)", () => {
  it("a copy that arrives between decision and execution is not taken: nothing would ever remove it", () => {
    const queue = new RequestQueue();
    const [first, second] = [request(1), request(2)];
    queue.decided([first], 0);
    expect(queue.add(first, ENVELOPE, 0, 1)).toBe(false);
    expect(queue.add(second, ENVELOPE, 0, 2)).toBe(true);
    queue.executed(batchOf(first), 0);
    expect({ pending: queue.pending, waiting: queue.waiting }).toEqual({ pending: 1, waiting: 1 });
    expect(queue.take(LIMITS).map((entry) => entry.request)).toEqual([second]);
    queue.decided([second], 0);
    queue.executed(batchOf(second), 0);
    expect({ pending: queue.pending, waiting: queue.waiting, bytes: queue.pendingBytes }).toEqual({
      pending: 0,
      waiting: 0,
      bytes: 0,
    });
    expect(queue.find(second.key)).toBeUndefined();
    expect(queue.add(first, ENVELOPE, 0, 3), "after execution the client table answers").toBe(true);
  });

  it("pending counts what is not decided, also behind an older request that is not", () => {
    const queue = new RequestQueue();
    const requests = [1, 2, 3, 4].map((sequence) => request(sequence));
    for (const each of requests) queue.add(each, ENVELOPE, 0, 1);
    queue.decided(requests.slice(1), 0);
    expect(queue.pending).toBe(1);
    expect(queue.pendingBytes).toBe(requests[0]?.bytes.length);
    expect(queue.lateness.oldestDueUs(1)).toBe(1);
  });

  it("a client waits since its oldest request was due, or since it was served last, once enough have that request", () => {
    const queue = new RequestQueue();
    const [first, second, other] = [request(1), request(2), request(1, "other")];
    queue.add(first, ENVELOPE, 0, 10);
    queue.add(second, ENVELOPE, 0, 20);
    queue.add(other, ENVELOPE, 0, 30);
    expect(queue.lateness.neglectedSinceUs(2)).toBeNull();
    queue.voice(second.digest, 3);
    expect(queue.lateness.neglectedSinceUs(2), "behind an older one of its client").toBeNull();
    queue.voice(other.digest, 3);
    expect(queue.lateness.neglectedSinceUs(2)).toBe(30);
    queue.voice(first.digest, 3);
    expect(queue.lateness.neglectedSinceUs(2)).toBe(10);
    queue.decided([first], 40);
    expect(queue.lateness.neglectedSinceUs(2), "the turn of the other has not come").toBe(40);
    queue.decided([other], 50);
    queue.decided([request(2, "other")], 60);
    expect(queue.lateness.neglectedSinceUs(2), "served at 40, though due before").toBe(40);
  });
});

describe("rooms of the request queue (section 8)", () => {
  const wanted = (client: number, bytes: number, lot = 0.5) => {
    return { client: clientOf(client), bytes, cost: requestCost(bytes, 1), lot };
  };
  const fill = (
    queue: RequestQueue,
    client: number,
    count: number,
    bytes: number,
    source: Source = "client",
  ): number => {
    for (let sequence = 1; sequence <= count; sequence++) {
      if (!queue.room(wanted(client, bytes), source)) return sequence - 1;
      queue.add(requestOf(client, sequence, bytes), ENVELOPE, 0, 1, source);
    }
    return count;
  };

  it("one client has bounds of its own, by count and by bytes; others have room still", () => {
    const queue = new RequestQueue();
    expect(fill(queue, 1, 10_000, 10)).toBe(PENDING_PER_CLIENT_MAX);
    expect(queue.room(wanted(2, 10), "client")).toBe(true);
    const large = new RequestQueue();
    expect(fill(large, 1, 10_000, 1_000_000)).toBeLessThanOrEqual(PENDING_BYTES_PER_CLIENT_MAX / 1_000_000);
    expect(large.room(wanted(2, 1_000_000), "client")).toBe(true);
  });

  it("all clients together have a bound", () => {
    const queue = new RequestQueue();
    for (let client = 1; client <= 1_000; client++) fill(queue, client, 64, 2_000_000);
    expect(queue.pendingBytes).toBeLessThanOrEqual(PENDING_BYTES_MAX);
    expect(queue.room(wanted(2_000, 2_000_000), "client")).toBe(false);
  });

  it("what replicas forward and what must get through have rooms that clients cannot fill, and bounds too", () => {
    const queue = new RequestQueue();
    fill(queue, 1, 10_000, 10);
    expect(queue.room(wanted(1, 10), "client")).toBe(false);
    expect(queue.room(wanted(1, 10), "replica"), "forwarded").toBe(true);
    expect(queue.room(wanted(1, 10), "reserved"), "RESOLVE").toBe(true);
    const forwarded = new RequestQueue();
    expect(fill(forwarded, 1, 100, 1_000_000, "replica")).toBe(Math.floor(FORWARDED_BYTES_PER_CLIENT_MAX / 1_000_000));
    for (let client = 2; client < 100; client++) fill(forwarded, client, 100, 1_000_000, "replica");
    expect(forwarded.pendingBytes).toBeLessThanOrEqual(FORWARDED_BYTES_RESERVE);
    const reserved = new RequestQueue();
    expect(fill(reserved, 1, 10_000, 10, "reserved")).toBe(RESERVED_PER_CLIENT_MAX);
    expect(reserved.room(wanted(2, 10), "reserved")).toBe(true);
  });

  it("while clients are turned away, what nobody asks for again is forgotten; else it is forwarded", () => {
    const queue = new RequestQueue();
    fill(queue, 1, 10_000, 10);
    const [first, second] = [requestOf(1, 1, 10), requestOf(1, 2, 10)];
    expect(queue.askedAgain(first.key)).toBe(true);
    const late = queue.overdue(10_000_000, 1_000_000, 256);
    expect(late.map(({ request }) => request.sequence)).toEqual([1]);
    expect(queue.find(second.key)).toBeUndefined();
    expect(queue.pending).toBe(1);
    const calm = new RequestQueue();
    fill(calm, 1, 100, 10);
    fill(calm, 2, 2, 10);
    const forwarded = calm.overdue(10_000_000, 1_000_000, 256).map(({ request }) => request.client);
    expect(forwarded.filter((client) => client === clientOf(1)).length, "of one client at once").toBe(64);
    expect(forwarded.filter((client) => client === clientOf(2)).length).toBe(2);
  });

  it("a request is due when its client's turn would have come, as long as something is served, and at most 10 s later", () => {
    const queue = new RequestQueue();
    for (let sequence = 1; sequence <= 3; sequence++) queue.add(requestOf(1, sequence, 10), ENVELOPE, 0, 1_000);
    queue.add(requestOf(2, 1, 10), ENVELOPE, 0, 1_000);
    queue.decided([requestOf(2, 1, 10)], 500_000);
    expect(queue.lateness.oldestDueUs(1), "another one was served meanwhile").toBe(500_000);
    queue.decided([], 900_000);
    expect(queue.lateness.oldestDueUs(1), "empty batches serve nobody").toBe(500_000);
    queue.decided([requestOf(9, 1, 10)], 30_000_000);
    expect(queue.lateness.oldestDueUs(1)).toBeLessThanOrEqual(10_001_000);
  });

  it("a batch holds no more of one client than half of the others want, and a little", () => {
    const queue = new RequestQueue();
    fill(queue, 1, 1_000, 10);
    for (let client = 2; client <= 6; client++) fill(queue, client, 2, 10);
    const taken = queue.take({ requestsMax: 4_000, bytesMax: 4_000_000, overheadBytes: 4, nowUs: 0 });
    const ofFirst = taken.filter(({ request }) => request.client === clientOf(1)).length;
    expect(taken.length - ofFirst).toBe(10);
    expect(ofFirst).toBeGreaterThan(0);
    expect(ofFirst).toBeLessThan(10);
  });

  it("alone a client gets the whole batch; and what is too large for a turn goes when nothing else does", () => {
    const queue = new RequestQueue();
    fill(queue, 1, 1_000, 10);
    expect(queue.take({ requestsMax: 4_000, bytesMax: 4_000_000, overheadBytes: 4, nowUs: 0 })).toHaveLength(1_000);
    const large = new RequestQueue();
    large.decided([requestOf(2, 1, 10), requestOf(3, 1, 10)], 1);
    large.add(requestOf(1, 1, 1_000_000), ENVELOPE, 0, 1);
    expect(large.take({ requestsMax: 4_000, bytesMax: 4_000_000, overheadBytes: 4, nowUs: 0 })).toHaveLength(1);
  });
});
