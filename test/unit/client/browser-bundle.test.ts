/** client/browser.ts bundles for a browser without a single Node builtin (ARCHITECTURE.md, layering), and the bundle works. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { afterAll, expect, test, vi } from "vitest";
import type * as BrowserApi from "../../../client/browser.ts";
import { FakeClock, FakeCluster } from "./fake-replicas.ts";
import { answerOf } from "./fixture.ts";

const directory = mkdtempSync(join(tmpdir(), "quorate-browser-"));
afterAll(() => {
  vi.unstubAllGlobals();
  rmSync(directory, { recursive: true, force: true });
});

function bundle(entry: string) {
  return build({
    entryPoints: [fileURLToPath(new URL(`../../../client/${entry}`, import.meta.url))],
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "browser",
    logLevel: "silent",
  });
}

test("client/browser.ts needs no Node builtin, and is a client", async () => {
  const { outputFiles, metafile } = await bundle("browser.ts");
  const external = Object.values(metafile.outputs).flatMap((output) => output.imports.filter((used) => used.external));
  expect(external).toEqual([]);
  expect(Object.keys(metafile.inputs).filter((path) => path.startsWith("node:"))).toEqual([]);
  const file = join(directory, "client.mjs");
  writeFileSync(file, outputFiles[0]?.text ?? "");
  // tweetnacl looks for a browser's random numbers at `self.crypto`.
  vi.stubGlobal("self", globalThis);
  const api = (await import(pathToFileURL(file).href)) as typeof BrowserApi;
  const clock = new FakeClock();
  const cluster = new FakeCluster({ clock });
  const identity = api.newIdentity();
  const opening = api.connect({ cluster: cluster.file, identity, transport: cluster, clock, signed: true });
  const kv = await answerOf(clock, opening);
  await answerOf(clock, kv.put("a", "from a browser"));
  expect((await answerOf(clock, kv.get("a")))?.value).toBe("from a browser");
  expect(cluster.faults).toEqual([]);
  await answerOf(clock, kv.close());
});

test("client/index.ts does need Node: the check above can fail", async () => {
  await expect(bundle("index.ts")).rejects.toThrow(/node:|Could not resolve/);
});
