/** The README's SDK example runs as it is printed, but for the place of the cluster file and of the package. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { TestCluster } from "./cluster.ts";
import { compiled, run } from "./programs.ts";

const README = new URL("../../README.md", import.meta.url);

/** The first TypeScript block that imports the SDK. @throws Error when there is none */
function example(text: string): string {
  for (const [, code = ""] of text.matchAll(/^```ts\n(.*?)^```$/gms)) {
    if (/from "quorate\/client"/.test(code)) return code;
  }
  throw new Error('README.md has no ```ts block that imports "quorate/client"');
}

/** What the comments behind `console.log` calls say is printed, in order. */
function promised(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\); \/\/ (.+)$/gm)].map(([, text = ""]) => text);
}

test("the SDK example of the README does what it says", async () => {
  const printed = example(readFileSync(README, "utf8"));
  const cluster = await TestCluster.start();
  const code = printed
    .replaceAll('"quorate/client"', JSON.stringify(compiled("client/index").href))
    .replace(/cluster: "[^"]*"/, `cluster: ${JSON.stringify(cluster.clusterPath)}`);
  expect(code).toContain(cluster.clusterPath);
  const file = join(cluster.folder, "example.mjs");
  writeFileSync(file, code);
  const { code: exit, stdout, stderr } = await run(pathToFileURL(file), []);
  expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
  const said = stdout.trim().split("\n");
  for (const line of promised(printed)) expect(said).toContain(line);
});
