/** Usage, exit codes and help of the whole program, without a cluster. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { endingOf } from "../../../cli/exit.ts";
import { buildProgram } from "../../../cli/program.ts";
import { readValue } from "../../../cli/value-input.ts";
import { ASK_OUTCOME, UnknownOutcomeError } from "../../../client/errors.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { type ErrorCode, QuorateError } from "../../../protocol/errors.ts";
import { kv, temporaryFolder, testIo } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder.remove());

describe("usage errors end in 2 with one line and a hint", () => {
  test.each([
    [["pit", "k", "v"], /unknown command 'pit' \(Did you mean put\?\); see kv --help/],
    [["put"], /missing required argument 'key'; see kv put --help/],
    [["get", "a", "b"], /too many arguments.*; see kv get --help/],
    [["get", "a", "-o", "xml"], /choices are simple, json, table, raw; see kv get --help/],
    [["--timeout", "3", "get", "a"], /500ms, 3s, 1m; see kv get --help/],
    [["get", "a", "--frobnicate"], /unknown option '--frobnicate'; see kv get --help/],
    [["cas", "k", "v"], /--expect.*not specified/],
    [["put", "k", "v", "--if-revision", "0"], /positive integer/],
    [["put", "k", "v", "--if-revision", "3", "--if-absent"], /exclude each other/],
    [["range", "--prefix", "a", "--to", "b"], /--prefix excludes/],
    [["range", "-o", "raw"], /-o raw is not a form of this command; use simple, json, table/],
    [["bench", "--clients", "2", "--connections", "3"], /--connections 3 exceeds --clients 2/],
    [["bench", "--mix", "put=0"], /at least one weight/i],
    [["client", "grant", "--expires", "5s"], /minutes, hours or days: 90m, 12h, 30d; see kv client grant --help/],
    [["view", "--timeout", "3", "set-f"], /500ms, 3s, 1m; see kv view set-f --help/],
    [["client", "grunt"], /unknown command 'grunt'.*; see kv client --help/],
  ])("kv %j", async (argv, line) => {
    const { code, out, err } = await kv(argv);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(line);
    expect(err).toMatch(/^kv: [^\n]+\n$/);
  });

  test("no verb at all shows the help on stderr", async () => {
    const { code, out, err } = await kv([]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("Usage: kv");
  });
});

describe("help", () => {
  const verbs = buildProgram(testIo(), () => {}).commands.map((command) => command.name());

  test.each(verbs)("kv %s --help ends with examples of kv", async (verb) => {
    const { code, out, err } = await kv([verb, "--help"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const [, examples = ""] = out.split("\nExamples:\n");
    const lines = examples.trimEnd().split("\n");
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(line).toMatch(/^ {2}\$ .*\bkv /);
    expect(out).toContain("--timeout <duration>");
  });

  test.each(verbs)("the examples of kv %s parse", async (verb) => {
    const { out } = await kv([verb, "--help"]);
    const lines = (out.split("\nExamples:\n")[1] ?? "").trimEnd().split("\n");
    for (const line of lines) {
      for (const part of line.slice(4).split(" | ")) {
        const words = (part.split(" > ")[0] ?? "").trim().split(" ");
        if (words.shift() !== "kv") continue;
        // Parse only: the actions are replaced.
        const program = buildProgram(testIo(), () => {});
        const seen: string[] = [];
        for (const verb of program.commands) {
          for (const command of [verb, ...verb.commands]) command.action(() => void seen.push(verb.name()));
        }
        await program.parseAsync(words, { from: "user" });
        expect(seen, line).toEqual([words.find((word) => verbs.includes(word))]);
      }
    }
  });

  test("all verbs of the interface are there", () => {
    const wanted =
      "init dev put get delete cas range import export status snapshot recover client view bench id client-key".split(
        " ",
      );
    expect([...verbs].sort()).toEqual(wanted.sort());
  });

  test("the version is the package's", async () => {
    const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"));
    expect(await kv(["--version"])).toEqual({ code: 0, out: `${version}\n`, err: "" });
  });
});

describe("which cluster and which key", () => {
  const missing = (path: string): RegExp => new RegExp(`^kv: cluster file ${path} does not exist; [^\\n]+\\n$`);

  test("the flag, before or after the verb, then KV_CLUSTER, then .kv", async () => {
    const env = { KV_CLUSTER: "/nowhere/from-env" };
    expect((await kv(["get", "k", "--cluster", "/nowhere/flag"], { env })).err).toMatch(missing("/nowhere/flag"));
    expect((await kv(["--cluster", "/nowhere/flag", "get", "k"], { env })).err).toMatch(missing("/nowhere/flag"));
    const fromEnv = await kv(["get", "k"], { env });
    expect(fromEnv.code).toBe(2);
    expect(fromEnv.err).toMatch(missing("/nowhere/from-env"));
  });

  test("wrong cluster files and missing keys are one line and exit 2", async () => {
    const path = folder.in("cluster.json");
    const get = () => kv(["get", "k", "--cluster", path]);
    for (const [text, line] of [
      ["not json", /is not JSON/],
      ['{"format":2}', /format/],
      ["{}", /format/],
    ] as const) {
      writeFileSync(path, text);
      const { code, err } = await get();
      expect(code).toBe(2);
      expect(err).toMatch(line);
      expect(err).toMatch(/^kv: [^\n]+\n$/);
    }
    await kv(["init", "--dir", folder.in("c"), "--replicas", "1"]);
    const { code, err } = await kv([
      "get",
      "k",
      "--cluster",
      folder.in("c/cluster.json"),
      "--identity",
      folder.in("no.key"),
    ]);
    expect(code).toBe(2);
    expect(err).toMatch(/key file .*no\.key does not exist; .*client-key/);
  });

  test("a key too long or empty costs no connection", async () => {
    await kv(["init", "--dir", folder.in("c"), "--replicas", "1"]);
    const cluster = ["--cluster", folder.in("c/cluster.json")];
    expect(await kv(["get", "", ...cluster])).toMatchObject({ code: 2, err: expect.stringContaining("empty") });
    expect(await kv(["put", "k".repeat(4_097), "v", ...cluster])).toMatchObject({ code: 2 });
  });
});

describe("VALUE", () => {
  test("is the argument, a file, or stdin", async () => {
    expect(await readValue("text", testIo())).toEqual(utf8("text"));
    expect(await readValue("", testIo())).toEqual(utf8(""));
    writeFileSync(folder.in("file"), Uint8Array.of(0, 255));
    expect(Buffer.from(await readValue(`@${folder.in("file")}`, testIo()))).toEqual(Buffer.of(0, 255));
    expect(Buffer.from(await readValue("-", testIo({ stdin: Uint8Array.of(10, 255) })))).toEqual(Buffer.of(10, 255));
    expect(Buffer.from(await readValue(undefined, testIo({ stdin: "piped\n" })))).toEqual(Buffer.from("piped\n"));
  });

  test("too large, missing or a directory is refused", async () => {
    const large = "x".repeat(1024 * 1024 + 1);
    await expect(readValue(large, testIo())).rejects.toMatchObject({ code: "VALUE_TOO_LARGE" });
    await expect(readValue("-", testIo({ stdin: large }))).rejects.toMatchObject({ code: "VALUE_TOO_LARGE" });
    await expect(readValue(`@${folder.in("no")}`, testIo())).rejects.toThrow(/does not exist/);
    mkdirSync(folder.in("dir"));
    await expect(readValue(`@${folder.in("dir")}`, testIo())).rejects.toThrow(/is a directory/);
    await expect(readValue("@", testIo())).rejects.toThrow(/names no file/);
    expect((await readValue("-", testIo({ stdin: large.slice(1) }))).length).toBe(1024 * 1024);
  });
});

describe("exit codes", () => {
  test.each([
    ["CONFLICT", 4],
    ["REFUSED", 4],
    ["STORAGE_FULL", 4],
    ["TIMEOUT", 3],
    ["UNKNOWN_OUTCOME", 3],
    ["QUORUM_UNAVAILABLE", 3],
    ["DEADLINE", 3],
    ["VALUE_TOO_LARGE", 2],
    ["CONFIG_MISSING", 2],
    ["PORT_IN_USE", 2],
    ["DIRECTORY_EXISTS", 2],
    ["KEY_FILE_PERMISSIONS", 2],
    ["CLUSTER_MISMATCH", 2],
  ] as const)("%s ends in %d", (code: ErrorCode, exitCode) => {
    expect(endingOf(new QuorateError(code, "what\n to do"), "get")).toEqual({
      exitCode,
      line: `kv: what to do [${code}]`,
    });
  });

  test("a code that the message names already is not named twice", () => {
    const { line } = endingOf(new QuorateError("SESSION_EXPIRED", "the cluster answered SESSION_EXPIRED"), "put");
    expect(line).toBe("kv: the cluster answered SESSION_EXPIRED");
  });

  test("a write whose outcome is unknown: what somebody with a terminal can do about it", () => {
    const error = new UnknownOutcomeError("UNKNOWN_OUTCOME", `timed out; ${ASK_OUTCOME}`, {
      requestId: { session: 1, sequence: 2 },
    });
    expect(endingOf(error, "put")).toEqual({
      exitCode: 3,
      line: "kv: timed out; the write may still take effect: read the key before writing again [UNKNOWN_OUTCOME]",
    });
  });

  test("errors of the system are input errors, anything unforeseen is a defect, neither with a stack", () => {
    const system = Object.assign(new Error("EACCES: permission denied, open 'x'"), { code: "EACCES", syscall: "open" });
    expect(endingOf(system, null)).toEqual({ exitCode: 2, line: "kv: EACCES: permission denied, open 'x'" });
    expect(endingOf(new TypeError("boom"), null)).toMatchObject({
      exitCode: 70,
      line: expect.stringContaining("boom"),
    });
    expect(endingOf(undefined, null).exitCode).toBe(70);
    expect(endingOf(new CommanderError(0, "commander.helpDisplayed", ""), null)).toEqual({ exitCode: 0, line: "" });
  });
});

test("kv client-key creates a private key once, kv id names it", async () => {
  const file = folder.in("alice.key");
  const created = await kv(["client-key", file]);
  expect(created.code).toBe(0);
  const [, id = ""] = /^id {3}([0-9a-f]{64})\nkeys [0-9a-f]{128}\n$/.exec(created.out) ?? [];
  expect(id).not.toBe("");
  expect((statSync(file).mode & 0o777).toString(8)).toBe("600");
  const text = readFileSync(file, "utf8");
  expect(await kv(["client-key", file])).toMatchObject({
    code: 2,
    out: "",
    err: expect.stringContaining("never overwritten"),
  });
  expect(readFileSync(file, "utf8")).toBe(text);
  expect(await kv(["id", file, "-o", "raw"])).toEqual({ code: 0, out: id, err: "" });
  const shown = JSON.parse((await kv(["id", file, "-o", "json"])).out) as { file: string; id: string; keys: string };
  expect(created.out).toBe(`id   ${shown.id}\nkeys ${shown.keys}\n`);
  writeFileSync(file, text.replace('"client"', '"admin"'));
  expect(await kv(["id", file])).toMatchObject({ code: 2, out: "" });
  expect(await kv(["id", folder.in("none")])).toMatchObject({
    code: 2,
    err: expect.stringContaining("does not exist"),
  });
});
