/** The look at the stores comes round every second, and never twice at once. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { watchStores } from "../../../server/store-watch.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("waits for a look that takes long, goes on, and ends", async () => {
  const looks: (() => void)[] = [];
  const end = watchStores(() => new Promise((resolve) => looks.push(resolve)));
  await vi.advanceTimersByTimeAsync(3_500);
  expect(looks).toHaveLength(1);
  looks[0]?.();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(looks).toHaveLength(2);
  end();
  looks[1]?.();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(looks).toHaveLength(2);
});
