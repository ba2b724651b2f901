import { describe, expect, it } from "vitest";
import { type Digest, latin1, utf8 } from "../../../protocol/bytes.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";
import { RequestQueue } from "../../../server/consensus/request-queue.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

const CLUSTER = latin1(new Uint8Array(32).fill(7)) as Digest;
const ENVELOPE = new Uint8Array(10);
const LIMITS = { requestsMax: 100, bytesMax: 1_000_000, overheadBytes: 4 };

function request(sequence: number, name = "client"): Request {
  const fields = { session: 1, sequence, ackedBelow: 1, kind: "ordered" as const, deadlineMs: 0 };
  const client = fastCrypto.sha256(utf8(name));
  const bytes = encodeRequest({ cluster: CLUSTER, client, ...fields, commands: [utf8("command")] });
  return decodeRequest(fastCrypto, bytes);
}

describe("request queue (section 4.1 and 8)", () => {
  it("a copy that arrives between decision and execution is not taken: nothing would ever remove it", () => {
    const queue = new RequestQueue();
    const [first, second] = [request(1), request(2)];
    queue.decided([first], 0);
    expect(queue.add(first, ENVELOPE, 0, 1)).toBe(false);
    expect(queue.add(second, ENVELOPE, 0, 2)).toBe(true);
    queue.executed([first]);
    expect({ pending: queue.pending, waiting: queue.waiting }).toEqual({ pending: 1, waiting: 1 });
    expect(queue.take(LIMITS).map((entry) => entry.request)).toEqual([second]);
    queue.decided([second], 0);
    queue.executed([second]);
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
    expect(queue.oldestDueUs(1)).toBe(1);
  });

  it("a client waits since its oldest request was due, or since it was served last, once enough have that request", () => {
    const queue = new RequestQueue();
    const [first, second, other] = [request(1), request(2), request(1, "other")];
    queue.add(first, ENVELOPE, 0, 10);
    queue.add(second, ENVELOPE, 0, 20);
    queue.add(other, ENVELOPE, 0, 30);
    expect(queue.neglectedSinceUs(2)).toBeNull();
    queue.voice(second.digest, 3);
    expect(queue.neglectedSinceUs(2), "behind an older one of its client").toBeNull();
    queue.voice(other.digest, 3);
    expect(queue.neglectedSinceUs(2)).toBe(30);
    queue.voice(first.digest, 3);
    expect(queue.neglectedSinceUs(2)).toBe(10);
    queue.decided([first], 40);
    expect(queue.neglectedSinceUs(2)).toBe(30);
    queue.decided([other], 50);
    expect(queue.neglectedSinceUs(2), "served at 40, though due before").toBe(40);
  });
});
