/** The repository keeps its own rules: who may import whom, what the pure rooms may not know, and how long a file may be. */
import { readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, normalize, relative } from "node:path";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../../..");
const rooms = ["protocol", "storage", "client", "cli", "server", "examples", "test"];

function sources(directory: string): string[] {
  return readdirSync(join(root, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

const files = new Map(rooms.flatMap(sources).map((file) => [file, readFileSync(join(root, file), "utf8")]));

/** Specifiers of static and dynamic imports and re-exports. */
function imports(text: string): string[] {
  const found = text.matchAll(
    /(?:^|\n)\s*(?:import|export)\b[^"';]*?from\s*"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)|(?:^|\n)import\s+"([^"]+)"/g,
  );
  return [...found].map((match) => match[1] ?? match[2] ?? match[3] ?? "");
}

/** The room of a repository path: the pure rooms of the server count on their own. */
function roomOf(path: string): string {
  const [first, second] = path.split("/");
  return first === "server" && second !== undefined && ["consensus", "recovery", "service"].includes(second)
    ? `server/${second}`
    : (first ?? "");
}

const allowed: Record<string, readonly string[]> = {
  protocol: ["protocol"],
  storage: ["protocol", "storage"],
  client: ["protocol", "client"],
  "server/consensus": ["protocol", "server/consensus"],
  "server/recovery": ["protocol", "server/recovery"],
  "server/service": ["protocol", "server/service"],
  server: ["protocol", "storage", "server", "server/consensus", "server/recovery", "server/service"],
  cli: ["protocol", "client", "server", "cli"],
};

function violations(text: string, file: string): string[] {
  const room = roomOf(file);
  const rights = allowed[room];
  if (!rights) return [];
  return imports(text)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => normalize(join(dirname(file), specifier)))
    .filter((target) => !rights.includes(roomOf(target)))
    .map((target) => `${file} imports ${target}`);
}

describe("layering", () => {
  it("finds imports of every form", () => {
    const text =
      'import a from "./a.ts";\nimport type {\n  B,\n} from "../b.ts";\nexport { c } from "./c.ts";\nconst d = await import("./d.ts");\nimport "./e.ts";';
    expect(imports(text)).toEqual(["./a.ts", "../b.ts", "./c.ts", "./d.ts", "./e.ts"]);
    expect(violations('import { x } from "../storage/contract.ts";', "client/kv.ts")).toHaveLength(1);
    expect(violations('import { x } from "../replica.ts";', "server/consensus/ordering.ts")).toHaveLength(1);
  });

  it("every import stays within its room's rights", () => {
    expect([...files].flatMap(([file, text]) => violations(text, file))).toEqual([]);
  });

  it("examples use the package as others do: by what it exports, and Node", () => {
    const used = [...files]
      .filter(([file]) => file.startsWith("examples/"))
      .flatMap(([file, text]) => imports(text).map((specifier) => `${file} imports ${specifier}`));
    expect(used.length).toBeGreaterThan(3);
    expect(
      used.filter((line) => !/ imports (?:quorate\/(?:client|server)|node:[a-z]+|\.\/[a-z-]+\.ts)$/.test(line)),
    ).toEqual([]);
  });

  it("no import cycles", () => {
    const graph = new Map(
      [...files]
        .filter(([file]) => !file.startsWith("test/"))
        .map(([file, text]) => [
          file,
          imports(text.replace(/import type [^;]*;/g, ""))
            .filter((specifier) => specifier.startsWith("."))
            .map((specifier) => normalize(join(dirname(file), specifier))),
        ]),
    );
    const done = new Set<string>();
    const cycles: string[] = [];
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      if (done.has(file) || path.includes(file)) return;
      for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
      done.add(file);
    };
    for (const file of graph.keys()) visit(file, []);
    expect(cycles).toEqual([]);
  });
});

describe("the pure rooms", () => {
  const forbidden = [
    [/\bDate\b/, "the clock"],
    [/\bMath\.random\b/, "randomness"],
    [/\b(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/, "timers"],
    [/\basync\b|\bawait\b|\bPromise\b/, "asynchrony"],
    [/\bprocess\b/, "the process"],
    [/from "node:/, "Node"],
  ] as const;

  const code = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/.*$/gm, "");

  it("know no clock, randomness, timers, asynchrony, process or Node", () => {
    const found: string[] = [];
    for (const [file, text] of files) {
      if (!/^server\/(?:consensus|recovery|service)\//.test(file)) continue;
      for (const [pattern, what] of forbidden) if (pattern.test(code(text))) found.push(`${file} uses ${what}`);
    }
    expect(found).toEqual([]);
    expect([...files.keys()].filter((file) => file.startsWith("server/consensus/")).length).toBeGreaterThan(5);
  });

  it("protocol/ is browser-safe: only crypto/node.ts imports Node", () => {
    const builtin = new Set([...builtinModules, ...builtinModules.map((name) => `node:${name}`)]);
    const found = [...files]
      .filter(([file]) => file.startsWith("protocol/"))
      .filter(([, text]) => imports(text).some((specifier) => builtin.has(specifier)))
      .map(([file]) => file);
    expect(found).toEqual(["protocol/crypto/node.ts"]);
  });
});

describe("style", () => {
  it("no file of the product is longer than 600 lines", () => {
    const long = [...files].filter(([file, text]) => !file.startsWith("test/") && text.split("\n").length > 600);
    expect(long.map(([file]) => file)).toEqual([]);
  });

  it("every file of the product says first what it guarantees", () => {
    const silent = [...files].filter(
      ([file, text]) => !file.startsWith("test/") && !/^(?:#![^\n]*\n)?\/\*\*/.test(text),
    );
    expect(silent.map(([file]) => file)).toEqual([]);
  });

  it("files are kebab-case and named after what they hold", () => {
    const odd = [...files.keys()].filter(
      (file) => !/^(?:[a-z0-9-]+\/)*[a-z0-9-]+(?:\.property)?(?:\.test)?\.ts$/.test(file),
    );
    expect(odd).toEqual([]);
    const vague = [...files.keys()].filter((file) => /(?:utils?|common|helpers?|manager)\.ts$/.test(file));
    expect(vague).toEqual([]);
  });
});
