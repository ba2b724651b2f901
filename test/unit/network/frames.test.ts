import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { FRAME_BYTES_MAX } from "../../../protocol/limits.ts";
import {
  FRAME_MESSAGES_MAX,
  FrameOpener,
  FrameSealer,
  FrameSplitter,
  type LinkFaultCode,
  MESSAGE_BYTES_MAX,
} from "../../../server/network/frames.ts";

const key = nodeCrypto.macKey(new Uint8Array(32).fill(1));
const otherKey = nodeCrypto.macKey(new Uint8Array(32).fill(2));

/** A receiving end: what it got, and the fault that ended it. */
function receiver(macKey = key, bytesMax = FRAME_BYTES_MAX) {
  const splitter = new FrameSplitter(bytesMax);
  const opener = new FrameOpener(nodeCrypto, macKey);
  const got: Buffer[] = [];
  let fault: LinkFaultCode | null = null;
  return {
    got,
    push(chunk: Uint8Array): LinkFaultCode | null {
      fault ??= splitter.push(chunk, (body) =>
        opener.open(body, (message) => {
          got.push(Buffer.from(message));
          return true;
        }),
      );
      return fault;
    },
  };
}

const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 });

describe("frames (section 2)", () => {
  test("what is sealed opens to the same messages however the bytes are cut", () => {
    fc.assert(
      fc.property(fc.array(messages, { minLength: 1, maxLength: 5 }), fc.infiniteStream(fc.nat(700)), (turns, cuts) => {
        const sealer = new FrameSealer(nodeCrypto, key);
        const stream = Buffer.concat(turns.flatMap((turn) => sealer.seal(turn)));
        const end = receiver();
        for (let at = 0; at < stream.length; ) {
          const next = Math.min(stream.length, at + 1 + (cuts.next().value as number));
          expect(end.push(stream.subarray(at, next))).toBeNull();
          at = next;
        }
        expect(end.got).toEqual(turns.flat().map((message) => Buffer.from(message)));
      }),
      { numRuns: 200 },
    );
  });

  test("one byte at a time", () => {
    const stream = Buffer.concat(new FrameSealer(nodeCrypto, key).seal([Buffer.from("a"), Buffer.from("bc")]));
    const end = receiver();
    for (const byte of stream) expect(end.push(Uint8Array.of(byte))).toBeNull();
    expect(end.got.map(String)).toEqual(["a", "bc"]);
  });

  test("random bytes never throw and deliver nothing", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 10 }), (chunks) => {
        const end = receiver();
        for (const chunk of chunks) end.push(chunk);
        expect(end.got).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  test("random bodies of an allowed length are refused with a fault", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (body) => {
        const opener = new FrameOpener(nodeCrypto, key);
        const fault = opener.open(body, () => expect.unreachable());
        expect(["LINK_LENGTH", "LINK_COUNTER", "LINK_MAC"]).toContain(fault);
      }),
      { numRuns: 500 },
    );
  });

  test("any single flipped bit is a fault, and nothing of that frame is delivered", () => {
    const sealed = Buffer.concat(new FrameSealer(nodeCrypto, key).seal([Buffer.from("hello world")]));
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Buffer.from(sealed);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      const end = receiver();
      end.push(changed);
      const fault = end.push(new Uint8Array(2 * 8192));
      expect(end.got).toEqual([]);
      // A longer length waits for more bytes: only a length that grew within the limit gives no fault at once.
      if (bit >= 32) expect(fault, `bit ${bit}`).not.toBeNull();
    }
  });

  test.each<[string, (frames: Uint8Array[]) => Uint8Array[], LinkFaultCode]>([
    ["a repeated frame", ([a = new Uint8Array()]) => [a, a], "LINK_COUNTER"],
    ["a lost frame", ([, b = new Uint8Array()]) => [b], "LINK_COUNTER"],
    ["two frames exchanged", ([a = new Uint8Array(), b = new Uint8Array()]) => [b, a], "LINK_COUNTER"],
  ])("%s is refused", (_name, change, code) => {
    const sealer = new FrameSealer(nodeCrypto, key);
    const frames = [...sealer.seal([Buffer.from("one")]), ...sealer.seal([Buffer.from("two")])];
    const end = receiver();
    expect(end.push(Buffer.concat(change(frames)))).toBe(code);
    expect(end.got.length).toBeLessThan(2);
  });

  test("another key is LINK_MAC", () => {
    const [frame = new Uint8Array()] = new FrameSealer(nodeCrypto, otherKey).seal([Buffer.from("x")]);
    expect(receiver().push(frame)).toBe("LINK_MAC");
  });

  test("a length above the limit is refused from its four bytes alone", () => {
    const header = Buffer.alloc(4);
    header.writeUInt32BE(FRAME_BYTES_MAX + 1);
    expect(receiver().push(header)).toBe("LINK_LENGTH");
    header.writeUInt32BE(0xffff_ffff);
    expect(receiver().push(header)).toBe("LINK_LENGTH");
    const end = receiver(key, 100);
    expect(end.push(Uint8Array.of(0, 0, 0))).toBeNull();
    expect(end.push(Uint8Array.of(101))).toBe("LINK_LENGTH");
  });

  test("inner lengths that do not add up are refused after a valid MAC", () => {
    const sealer = new FrameSealer(nodeCrypto, key);
    const [frame = new Uint8Array()] = sealer.seal([Buffer.from("abcd")]);
    // MAC again over a payload whose inner length says 200.
    const forged = Buffer.from(frame);
    forged.writeUInt32BE(200, 28);
    forged.write(nodeCrypto.mac(key, forged.subarray(20)).slice(0, 16), 4, "latin1");
    const end = receiver();
    expect(end.push(forged)).toBe("LINK_LENGTH");
    expect(end.got).toEqual([]);
  });

  test("more messages than allowed in one frame are refused", () => {
    const count = FRAME_MESSAGES_MAX + 1;
    const frame = Buffer.alloc(28 + 4 * count);
    frame.writeUInt32BE(frame.length - 4, 0);
    frame.writeUInt32BE(1, 24);
    frame.write(nodeCrypto.mac(key, frame.subarray(20)).slice(0, 16), 4, "latin1");
    const end = receiver();
    expect(end.push(frame)).toBe("LINK_LENGTH");
    expect(end.got.length).toBe(FRAME_MESSAGES_MAX);
  });

  test("frames are split at the limits of bytes and messages", () => {
    const sealer = new FrameSealer(nodeCrypto, key);
    const largest = new Uint8Array(MESSAGE_BYTES_MAX);
    const frames = sealer.seal([largest, Buffer.from("x"), largest]);
    expect(frames.map((frame) => frame.length)).toEqual([4 + FRAME_BYTES_MAX, 4 + 24 + 5, 4 + FRAME_BYTES_MAX]);
    const end = receiver();
    for (const frame of frames) expect(end.push(frame)).toBeNull();
    expect(end.got.map((message) => message.length)).toEqual([largest.length, 1, largest.length]);
    const many = sealer.seal(new Array<Uint8Array>(2 * FRAME_MESSAGES_MAX + 1).fill(new Uint8Array(0)));
    expect(many.length).toBe(3);
    for (const frame of many) expect(end.push(frame)).toBeNull();
    expect(sealer.seal([])).toEqual([]);
  });

  test("a frame that lies whole in one chunk is not copied", () => {
    const chunk = Buffer.concat(new FrameSealer(nodeCrypto, key).seal([Buffer.from("abc")]));
    const opener = new FrameOpener(nodeCrypto, key);
    let view: Uint8Array | null = null;
    new FrameSplitter(FRAME_BYTES_MAX).push(chunk, (body) =>
      opener.open(body, (message) => {
        view = message;
        return true;
      }),
    );
    expect((view as Uint8Array | null)?.buffer).toBe(chunk.buffer);
  });
});
