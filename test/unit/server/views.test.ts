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
  const both = links.map(encodeLink);
  expect(views.leadingOn(both)).toEqual({ proven: both, all: true });
  expect(views.chain.newest.id).toBe(0);
});

test("what is forged, out of order or no link at all does not, and nothing after it", () => {
  const { views, links } = worldOfLinks();
  const [first, second] = links.map(encodeLink) as [Uint8Array, Uint8Array];
  const forged = { ...links[0], votes: links[0].votes.map((vote) => ({ ...vote, signature: new Uint8Array(64) })) };
  expect(views.leadingOn([second])).toEqual({ proven: [], all: false });
  expect(views.leadingOn([encodeLink(forged)])).toEqual({ proven: [], all: false });
  expect(views.leadingOn([first, Buffer.from("no link"), second])).toEqual({ proven: [first], all: false });
  expect(views.leadingOn([first, first])).toEqual({ proven: [first], all: false });
});

test("who brings links that another brought first is no liar", () => {
  const { views, links } = worldOfLinks();
  const [first, second] = links.map(encodeLink) as [Uint8Array, Uint8Array];
  views.receive(1, { type: "LINKS", view: 1, regency: 0, links: [first] }, 0);
  expect(views.chain.newest.id).toBe(1);
  expect(views.leadingOn([first])).toEqual({ proven: [], all: true });
  expect(views.leadingOn([first, second])).toEqual({ proven: [second], all: true });
});
