/** Whose request a worker gets next, and in which order what it says leaves (docs/protocol.md section 8). */
import { describe, expect, test } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { reject } from "../../../protocol/errors.ts";
import {
  INTAKE_BYTES_MAX,
  INTAKE_BYTES_PER_CLIENT_MAX,
  INTAKE_REQUESTS_MAX,
  INTAKE_REQUESTS_PER_CLIENT_MAX,
} from "../../../protocol/limits.ts";
import {
  type Answer,
  decodeAnswers,
  decodeRaw,
  encodeAnswers,
  encodeRaw,
} from "../../../server/intake-stage/batches.ts";
import { ConnectionOrder } from "../../../server/intake-stage/order.ts";
import { Turns } from "../../../server/intake-stage/turns.ts";
import { TestConnection } from "./intake-requests.ts";

describe("turns", () => {
  test("one of each client in turn, each client's own in order", () => {
    const turns = new Turns<string>();
    for (const item of ["a1", "a2", "a3", "a4", "b1", "b2", "c1"]) turns.push(item.slice(0, 1), item);
    const taken: (string | undefined)[] = [];
    for (let count = 0; count < 4; count++) taken.push(turns.take(() => true));
    // Whoever comes meanwhile does not wait for the flood.
    turns.push("d", "d1");
    while (turns.size > 0) taken.push(turns.take(() => true));
    expect(taken).toEqual(["a1", "b1", "c1", "a2", "b2", "a3", "d1", "a4"]);
    expect(turns.take(() => true)).toBeUndefined();
  });

  test("what does not fit stays, with its turn", () => {
    const turns = new Turns<string>();
    turns.push("a", "large");
    turns.push("b", "small");
    expect(turns.take((item) => item !== "large")).toBeUndefined();
    expect(turns.size).toBe(2);
    expect(turns.take(() => true)).toBe("large");
    expect(turns.take(() => true)).toBe("small");
  });
});

describe("the order of outcomes", () => {
  const outcome = (code: string) => reject("ignore", code);

  test("an outcome waits for those before it on its connection only", () => {
    const released: string[] = [];
    const order = new ConnectionOrder((connection, settled) => {
      released.push(`${connection.id === one.id ? "one" : "two"} ${"code" in settled ? settled.code : ""}`);
      return true;
    });
    const [one, two] = [new TestConnection("a"), new TestConnection("a")];
    const [first, second, third] = [order.join(one, 1), order.join(one, 1), order.join(one, 1)];
    const other = order.join(two, 1);
    order.settle(second, outcome("2"));
    expect(released).toEqual([]);
    order.settle(other, outcome("x"));
    order.settle(first, outcome("1"));
    expect(released).toEqual(["two x", "one 1", "one 2"]);
    expect(order.waits(one)).toBe(true);
    order.settle(third, outcome("3"));
    expect(order.waits(one)).toBe(false);
    expect(order.waiting).toBe(0);
    expect(() => order.settle(third, outcome("again"))).toThrow("one outcome");
  });

  test("the rest of an ended connection is let go, and leaves its room", () => {
    const released: string[] = [];
    const order = new ConnectionOrder((_, settled) => {
      released.push("code" in settled ? settled.code : "");
      return false;
    });
    const connection = new TestConnection("a");
    const places = [1, 2, 3].map(() => order.join(connection, 10));
    order.settle(places[0] as (typeof places)[0], outcome("1"));
    expect(order.waiting).toBe(0);
    // A line of its own: nothing of the old one leaves with it.
    const late = order.join(connection, 10);
    order.settle(places[1] as (typeof places)[0], outcome("2"));
    expect(released).toEqual(["1"]);
    order.settle(late, outcome("late"));
    expect(released).toEqual(["1", "late"]);
  });

  test("one client has a bound, whatever its connections", () => {
    const order = new ConnectionOrder(() => true);
    const places = Array.from({ length: INTAKE_REQUESTS_PER_CLIENT_MAX }, () => order.join(new TestConnection("a"), 1));
    expect(order.room("a", 1)).toBe(false);
    expect(order.room("b", 1)).toBe(true);
    order.settle(places[0] as (typeof places)[0], outcome("1"));
    expect(order.room("a", 1)).toBe(true);
  });

  test("everybody together has a bound, too", () => {
    const order = new ConnectionOrder(() => true);
    const bytes = INTAKE_BYTES_PER_CLIENT_MAX;
    for (let client = 0; client < INTAKE_BYTES_MAX / bytes; client++) {
      expect(order.room(`${client}`, bytes)).toBe(true);
      order.join(new TestConnection(`${client}`), bytes);
    }
    expect(order.room("one more", 1)).toBe(false);
    const many = new ConnectionOrder(() => true);
    for (let client = 0; client < INTAKE_REQUESTS_MAX; client++) many.join(new TestConnection(`${client}`), 1);
    expect(many.room("one more", 1)).toBe(false);
  });
});

describe("batches between threads", () => {
  test("decode to what they were", () => {
    const requests = [
      { keys: utf8("k".repeat(64)), envelope: utf8("envelope"), request: utf8("request") },
      { keys: new Uint8Array(0), envelope: new Uint8Array(0), request: new Uint8Array(70_000).fill(7) },
    ];
    const { position, requests: back } = decodeRaw(encodeRaw(3, requests));
    expect(position).toBe(3);
    expect(back.map((raw) => Object.values(raw).map((part) => Buffer.from(part)))).toEqual(
      requests.map((raw) => Object.values(raw).map((part) => Buffer.from(part))),
    );
    const answers: Answer[] = [
      { type: "authentic", digest: "d".repeat(32) },
      { type: "malformed", code: "REQUEST_MAGIC" },
      { type: "forged", digest: "\xff".repeat(32) },
      { type: "unproven", digest: "\0".repeat(32) },
    ];
    expect(decodeAnswers(encodeAnswers(answers))).toEqual(answers);
    expect(() => decodeAnswers(new Uint8Array([9]).buffer)).toThrow(RangeError);
  });
});
