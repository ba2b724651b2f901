/** A kv-server child process: what it says on stdout is heard, whatever it says first. */
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startReplica } from "../../../cli/local/replica-process.ts";
import { temporaryFolder } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder.remove());

test.each([
  ["ready replica=0 clients=a:1\\nretired replica=0: no member any more\\n", true],
  ["ready replica=0 clients=a:1\\n", false],
  ["", false],
])("one that says %j retired: %s", async (said, retired) => {
  writeFileSync(folder.in("server.mjs"), `process.stdout.write("${said}");`);
  const replica = startReplica({ config: "", log: folder.in("log"), program: pathToFileURL(folder.in("server.mjs")) });
  expect(await replica.exited).toEqual({ code: 0, signal: null });
  expect(await replica.retired).toBe(retired);
});
