/** Descriptors for outsiders, and those they cannot take (docs/protocol.md section 8). */
import { expect, test } from "vitest";
import { socketBudget } from "../../../server/network/socket-budget.ts";

test.each([
  [65_536, 61_184, 256],
  [20_000, 15_648, 256],
  [1_024, 448, 64],
])("with %i descriptors: %i connections of clients, %i to the admin port", (descriptors, clients, admin) => {
  expect(socketBudget(descriptors)).toEqual({ clients, admin });
});

test("of this process: something, and less than it has", () => {
  const { clients, admin } = socketBudget();
  expect(clients).toBeGreaterThan(100);
  expect(admin).toBeGreaterThan(10);
});
