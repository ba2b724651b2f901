/** The suite that every implementation of `Links` must pass (server/network/contract.ts). */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { LinkEvents, LinkFault, Links } from "../../../server/network/contract.ts";

export interface LinksHarness {
  /** Opens the links of one of the replicas, again after it was closed, too. */
  start(id: ReplicaId, events: LinkEvents): Promise<Links>;
  /** Lets (real or virtual) time pass until the condition holds; rejects when it never does. */
  until(condition: () => boolean, what: string): Promise<void>;
  stop(): Promise<void>;
}

/** What one replica saw, messages copied. */
export class Recorder implements LinkEvents {
  readonly messages: { from: ReplicaId; text: string }[] = [];
  readonly sizes: number[] = [];
  readonly events: string[] = [];
  readonly faults: LinkFault[] = [];

  onMessage(from: ReplicaId, payload: Uint8Array): void {
    this.sizes.push(payload.length);
    this.messages.push({ from, text: Buffer.from(payload.subarray(0, 64)).toString("latin1") });
  }

  onConnected(peer: ReplicaId): void {
    this.events.push(`+${peer}`);
  }

  onDisconnected(peer: ReplicaId): void {
    this.events.push(`-${peer}`);
  }

  onFault(fault: LinkFault): void {
    this.faults.push(fault);
  }

  textsFrom(peer: ReplicaId): string[] {
    return this.messages.filter((message) => message.from === peer).map((message) => message.text);
  }

  count(event: string): number {
    return this.events.filter((seen) => seen === event).length;
  }

  codes(): string[] {
    return this.faults.map((fault) => fault.code);
  }
}

interface Replica {
  readonly links: Links;
  readonly seen: Recorder;
}

export function linksContract(name: string, create: (ids: readonly ReplicaId[]) => Promise<LinksHarness>): void {
  describe(`links: ${name}`, () => {
    const ids = [0, 1, 2];
    let harness: LinksHarness;
    const replicas = new Map<ReplicaId, Replica>();
    const start = async (id: ReplicaId): Promise<Replica> => {
      const seen = new Recorder();
      const replica = { links: await harness.start(id, seen), seen };
      replicas.set(id, replica);
      return replica;
    };
    const at = (id: ReplicaId): Replica => replicas.get(id) as Replica;
    const text = (value: string): Uint8Array => Buffer.from(value, "latin1");

    beforeEach(async () => {
      harness = await create(ids);
      for (const id of [...ids].reverse()) await start(id);
      await harness.until(
        () => [...replicas.values()].every((one) => one.links.connected().length === 2),
        "all linked",
      );
    });
    afterEach(async () => {
      for (const { links } of replicas.values()) await links.close();
      replicas.clear();
      await harness.stop();
    });

    test("every pair is linked once, and no replica to itself", () => {
      for (const id of ids) {
        expect(at(id).links.connected()).toEqual(ids.filter((other) => other !== id));
        expect([...at(id).seen.events].sort()).toEqual(ids.filter((other) => other !== id).map((other) => `+${other}`));
        expect(at(id).seen.faults).toEqual([]);
      }
    });

    test("messages arrive whole, in order, from whom they came", async () => {
      const expected: string[] = [];
      for (let turn = 0; turn < 50; turn++) {
        for (let index = 0; index <= turn % 5; index++) {
          expected.push(`${turn}.${index}`);
          at(0).links.send(2, text(`${turn}.${index}`));
          at(1).links.send(2, text(`${turn}.${index}`));
        }
        at(0).links.flush();
        at(1).links.flush();
      }
      await harness.until(() => at(2).seen.messages.length === 2 * expected.length, "all messages");
      expect(at(2).seen.textsFrom(0)).toEqual(expected);
      expect(at(2).seen.textsFrom(1)).toEqual(expected);
    });

    test("both directions carry, and an empty message is a message", async () => {
      at(0).links.send(1, new Uint8Array(0));
      at(1).links.send(0, text("back"));
      at(0).links.flush();
      at(1).links.flush();
      await harness.until(() => at(1).seen.sizes.length === 1 && at(0).seen.sizes.length === 1, "both");
      expect(at(1).seen.sizes).toEqual([0]);
      expect(at(0).seen.messages).toEqual([{ from: 1, text: "back" }]);
    });

    test("queued messages count, wait for flush, and leave together whatever their size", async () => {
      const large = new Uint8Array(5 * 1024 * 1024).fill(120);
      for (const message of [text("first"), large, large, large, text("last")]) at(0).links.send(2, message);
      expect(at(0).links.queuedBytes(2)).toBeGreaterThanOrEqual(3 * large.length);
      at(0).links.flush();
      await harness.until(() => at(2).seen.sizes.length === 5, "all five");
      expect(at(2).seen.sizes).toEqual([5, large.length, large.length, large.length, 4]);
      await harness.until(() => at(0).links.queuedBytes(2) === 0, "queue empty");
    });

    test("many small messages of one turn arrive in order", async () => {
      for (let index = 0; index < 10_000; index++) at(0).links.send(1, text(String(index)));
      at(0).links.flush();
      await harness.until(() => at(1).seen.messages.length === 10_000, "all");
      expect(at(1).seen.messages.every((message, index) => message.text === String(index))).toBe(true);
    });

    test("sending to nobody, to oneself and to whoever is down is silently dropped", async () => {
      await at(2).links.close();
      await harness.until(() => at(0).seen.count("-2") === 1, "2 gone");
      at(0).links.send(2, text("lost"));
      at(0).links.send(0, text("self"));
      at(0).links.send(99, text("nobody"));
      at(0).links.send(1, text("heard"));
      at(0).links.flush();
      await harness.until(() => at(1).seen.messages.length === 1, "1 heard it");
      expect(at(0).links.queuedBytes(2)).toBe(0);
      expect(at(0).links.connected()).toEqual([1]);
      expect(at(0).seen.faults).toEqual([]);
      expect(at(0).seen.messages).toEqual([]);
    });

    test("a replica that comes back is linked again, without what was queued before", async () => {
      for (const gone of [0, 2]) {
        await at(gone).links.close();
        await harness.until(() => at(1).seen.count(`-${gone}`) === 1, `${gone} gone`);
        at(1).links.send(gone, text("before"));
        at(1).links.flush();
        const back = await start(gone);
        await harness.until(() => at(1).seen.count(`+${gone}`) === 2 && back.seen.count("+1") === 1, "linked again");
        at(1).links.send(gone, text("after"));
        at(1).links.flush();
        await harness.until(() => back.seen.messages.length === 1, "message");
        expect(back.seen.messages).toEqual([{ from: 1, text: "after" }]);
      }
    });

    test("punish counts the fault, drops the link, and the link comes back", async () => {
      for (const [judge, culprit] of [
        [0, 2],
        [2, 1],
      ] as const) {
        at(judge).links.punish(culprit, "TRUNCATED");
        expect(at(judge).links.connected()).not.toContain(culprit);
        expect(at(judge).seen.faults).toMatchObject([{ from: culprit, code: "TRUNCATED" }]);
        await harness.until(() => at(judge).links.connected().includes(culprit), "linked again");
        expect(at(judge).seen.count(`-${culprit}`)).toBe(1);
      }
      expect(at(0).seen.events.filter((event) => event.endsWith("1"))).toEqual(["+1"]);
    });

    test("a link that is punished from within onMessage delivers nothing more", async () => {
      const { seen, links } = at(2);
      const deliver = seen.onMessage.bind(seen);
      seen.onMessage = (from, payload) => {
        deliver(from, payload);
        links.punish(from, "BAD");
      };
      for (const message of ["bad", "never", "seen"]) at(0).links.send(2, text(message));
      at(0).links.flush();
      await harness.until(() => seen.count("+0") === 2, "linked again");
      expect(seen.textsFrom(0)).toEqual(["bad"]);
    });

    test("a queue above its bound drops the link, which comes back empty", async () => {
      const large = new Uint8Array(8 * 1024 * 1024 - 64);
      for (let index = 0; index < 9; index++) at(0).links.send(1, large);
      expect(at(0).seen.count("-1")).toBe(1);
      expect(at(0).seen.codes()).toEqual(["LINK_QUEUE"]);
      expect(at(0).links.queuedBytes(1)).toBe(0);
      at(0).links.flush();
      await harness.until(() => at(0).seen.count("+1") === 2 && at(1).seen.count("+0") === 2, "linked again");
      at(0).links.send(1, text("small"));
      at(0).links.flush();
      await harness.until(() => at(1).seen.messages.length === 1, "message");
      expect(at(1).seen.messages).toEqual([{ from: 0, text: "small" }]);
    });

    test("a message above the largest size is dropped and reported, the link stays", async () => {
      at(0).links.send(1, new Uint8Array(8 * 1024 * 1024));
      at(0).links.send(1, text("fits"));
      at(0).links.flush();
      await harness.until(() => at(1).seen.messages.length === 1, "message");
      expect(at(0).seen.codes()).toEqual(["LINK_MESSAGE_SIZE"]);
      expect(at(0).seen.events).not.toContain("-1");
    });

    test("close is final and may be called twice", async () => {
      await at(1).links.close();
      await at(1).links.close();
      expect(at(1).links.connected()).toEqual([]);
      await harness.until(() => at(0).seen.count("-1") === 1 && at(2).seen.count("-1") === 1, "others notice");
    });
  });
}
