/** Former members that may be back some day (docs/protocol.md section 7). */
import { expect, test } from "vitest";
import type { Change } from "../../../protocol/reconfiguration.ts";
import type { View } from "../../../protocol/view.ts";
import { ViewChain } from "../../../protocol/view-chain.ts";
import { formerMembers } from "../../../server/retirement.ts";
import { crypto, Reconfigured } from "../protocol/view-fixture.ts";

/** The chain after these changes, each of the view before. */
function chainOf(world: Reconfigured, changes: readonly ((view: View) => Change)[]): ViewChain {
  let chain = ViewChain.of(world.genesis);
  changes.forEach((change, at) => {
    const { link } = world.step(chain.newest, change, 100 * (at + 1));
    chain = chain.extended(crypto, link) as ViewChain;
  });
  return chain;
}

const idsOf = (chain: ViewChain): number[] => formerMembers(chain, chain.newest).map(({ id }) => id);

test("in the first view there are none; later those that left, the last ones first", () => {
  const world = new Reconfigured();
  expect(idsOf(chainOf(world, []))).toEqual([]);
  const chain = chainOf(world, [
    (view) => world.replacing(view, 0, 4),
    (view) => world.replacing(view, 2, 5),
    (view) => world.rotating(view, 3),
  ]);
  expect(idsOf(chain)).toEqual([2, 0]);
});

test("not where a member lives now, and no more than sixteen", () => {
  const world = new Reconfigured();
  const place = { host: "127.0.0.1", clientPort: 7000, peerPort: 7001, adminPort: 7002 };
  const moved = chainOf(world, [
    (view) => world.replacing(view, 0, 4),
    () => ({ type: "setAddress", id: 1, address: place }),
  ]);
  expect(idsOf(moved)).toEqual([]);
  const many = chainOf(
    world,
    Array.from({ length: 20 }, (_, at) => (view: View) => world.replacing(view, at, at + 4)),
  );
  expect(idsOf(many)).toEqual(Array.from({ length: 16 }, (_, at) => 19 - at));
});
