/** However kv-server is started, glibc's allocator gets the same settings. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ALLOCATOR_SETTINGS } from "../../../cli/local/replica-process.ts";

const SETTINGS = Object.entries(ALLOCATOR_SETTINGS)
  .map(([name, value]) => `${name}=${value}`)
  .join(" ");

test("the program's first line and the systemd unit say what kv local says", () => {
  const [first] = readFileSync("server/main.ts", "utf8").split("\n");
  expect(first).toBe(`#!/usr/bin/env -S ${SETTINGS} node`);
  expect(readFileSync("docs/quorate.service", "utf8").split("\n")).toContain(`Environment=${SETTINGS}`);
});
