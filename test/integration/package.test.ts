/** The package as its users get it: what package.json exports is built, packed, runs and has types (docs/library.md). */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "./cluster.ts";
import { compiled, type Ended, run } from "./programs.ts";

const COMPILE_MS_MAX = 240_000;
const root = fileURLToPath(new URL("../..", import.meta.url));
const tsc = pathToFileURL(join(root, "node_modules/typescript/bin/tsc"));

const PROGRAM = `
import { connectService, newIdentity, type OrderedInvocation, ServiceProxy } from "quorate/client";
import { Replica, serve, type Service, type ServiceFactory, snapshotted, utf8 } from "quorate/server";

class Echo implements Service {
  load(): void {}
  execute(command: Uint8Array): Uint8Array { return command; }
  query(command: Uint8Array): Uint8Array | null { return command; }
}
const service: ServiceFactory = () => new Echo();
const started: Promise<Replica> | null = process.argv[2] ? Replica.start({ config: process.argv[2], service, replier: () => "send" }) : null;
const invoke = (proxy: ServiceProxy): OrderedInvocation => proxy.invokeOrderedAsync(utf8("x"), { hashed: true });
console.log(started, [connectService, invoke, newIdentity, serve, snapshotted, Replica.start].every((one) => typeof one === "function"));
`;

/** The TypeScript blocks of docs/library.md. */
function documented(): string[] {
  const text = readFileSync(join(root, "docs/library.md"), "utf8");
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""]) => code);
}

/** A project that has the package among its modules, and nothing else of this repository. */
function project(programs: readonly string[], { skipLibCheck }: { skipLibCheck: boolean }): string {
  const folder = temporaryFolder();
  const names = programs.map((_, index) => `program${index}.ts`);
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules/quorate"));
  mkdirSync(join(folder, "node_modules/@types"));
  symlinkSync(join(root, "node_modules/@types/node"), join(folder, "node_modules/@types/node"));
  const options = { target: "ES2023", module: "NodeNext", strict: true, types: ["node"], skipLibCheck };
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: names }));
  programs.forEach((program, index) => {
    writeFileSync(join(folder, names[index] as string), program);
  });
  return folder;
}

const compile = (folder: string): Promise<Ended> =>
  run(tsc, ["-p", folder], { cwd: folder, timeoutMs: COMPILE_MS_MAX });

beforeAll(() => {
  compiled("server/main");
});

test("a project that imports the package is typed, compiles and runs; the examples of docs/library.md compile, too", async () => {
  const examples = documented();
  expect(examples).toHaveLength(2);
  const folder = project([PROGRAM, ...examples], { skipLibCheck: false });
  expect(await compile(folder)).toMatchObject({ code: 0, stdout: "" });
  const { code, stdout, stderr } = await run(pathToFileURL(join(folder, "program0.js")), [], { cwd: folder });
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: "null true\n", stderr: "" });
}, 300_000);

test("the types refuse a service that is none: the check above can fail", async () => {
  const folder = project(
    [PROGRAM.replace("execute(command: Uint8Array): Uint8Array", "execute(command: string): string")],
    { skipLibCheck: true },
  );
  const { code, stdout } = await compile(folder);
  expect(code).not.toBe(0);
  expect(stdout).toContain("Echo");
}, 300_000);

test("every file that package.json exports is built, and is in the package", async () => {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { exports: object };
  const targets = Object.values(exports).flatMap((target: string | object) =>
    typeof target === "string" ? [target] : (Object.values(target) as string[]),
  );
  expect(Object.keys(exports)).toEqual(["./client", "./server", "./package.json"]);
  for (const target of targets) expect(existsSync(join(root, target)), target).toBe(true);
  const npm = process.env.npm_execpath ?? join(process.execPath, "../../lib/node_modules/npm/bin/npm-cli.js");
  const packed = await run(pathToFileURL(npm), ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: root });
  expect(packed.code, packed.stderr).toBe(0);
  const [{ files }] = JSON.parse(packed.stdout) as [{ files: { path: string }[] }];
  const paths = new Set(files.map(({ path }) => `./${path}`));
  for (const target of targets) expect(paths, target).toContain(target);
  for (const path of ["./examples/counter/counter.ts", "./dist/LICENSES.txt"]) expect(paths).toContain(path);
});

test.each(["cli/main", "server/main"] as const)(
  "%s is one file: beside node itself it needs native packages alone",
  (name) => {
    const text = readFileSync(fileURLToPath(compiled(name)), "utf8");
    const asked = text.matchAll(/(?:^import .* from |\bimport\(|__require\()"([^"]+)"/gm);
    const needed = new Set([...asked].flatMap(([, specifier = ""]) => (isBuiltin(specifier) ? [] : [specifier])));
    // The last two are native, too, and optional in ws: nobody installs them here.
    expect(["classic-level", "uWebSockets.js", "bufferutil", "utf-8-validate"]).toEqual(
      expect.arrayContaining([...needed]),
    );
    expect(needed).toContain("classic-level");
  },
);
