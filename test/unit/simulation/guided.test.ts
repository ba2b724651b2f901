import { expect, it } from "vitest";
import { scoreOf } from "../../simulation/danger.ts";
import { GuidedSearch } from "../../simulation/guided.ts";

const RUNS = 60;

it("a guided search keeps what leads into danger, and does the same again from the same seed", () => {
  const searches = [new GuidedSearch(7), new GuidedSearch(7)];
  for (const search of searches) for (let run = 0; run < RUNS; run++) expect(search.try(true)).toBeNull();
  const [first, second] = searches as [GuidedSearch, GuidedSearch];
  expect(second.cells).toBe(first.cells);
  expect(second.worst).toEqual(first.worst);
  expect(first.cells).toBeGreaterThan(5);
  expect(first.worst && scoreOf(first.worst)).toBeGreaterThan(0);
});
