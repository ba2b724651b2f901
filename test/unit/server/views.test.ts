/** What strangers bring of the chain of views (docs/protocol.md section 7): proven before it is heard. */
import { expect, test } from "vitest";
import { encodeLink } from "../../../protocol/view-chain.ts";
import { Views } from "../../../server/views.ts";
import { crypto, Reconfigured } from "../protocol/view-fixture.ts";

function worldOfLinks() {
  const world = new Reconfigured();
  const first = world.step(world.genesis, (view) => world.adding(view, 4), 100);
  const second = world.step(first.view, (view) => world.replacing(view, 0, 5), 200);
  const views = new Views({ crypto, genesis: world.genesis, nowUs: () => 0, misbehaved: () => undefined });
  return { views, links: [first.link, second.link] as const };
}

test("links that prove themselves lead on from the newest view, and are not followed yet", () => {
  const { views, links } = worldOfLinks();
  expect(views.leadOn(links.map(encodeLink))).toBe(true);
  expect(views.leadOn([encodeLink(links[0])])).toBe(true);
  expect(views.chain.newest.id).toBe(0);
});

test("what is forged, out of order, of no use or nothing at all does not", () => {
  const { views, links } = worldOfLinks();
  const [first, second] = links;
  const forged = { ...first, votes: first.votes.map((vote) => ({ ...vote, signature: new Uint8Array(64) })) };
  expect(views.leadOn([encodeLink(second)])).toBe(false);
  expect(views.leadOn([encodeLink(first), encodeLink(first)])).toBe(false);
  expect(views.leadOn([encodeLink(forged)])).toBe(false);
  expect(views.leadOn([Buffer.from("no link")])).toBe(false);
  expect(views.leadOn([])).toBe(false);
});
