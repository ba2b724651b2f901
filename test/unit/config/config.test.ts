/** A replica's configuration: what loads, and that everything wrong is one line which says what to do. */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { parse as parseYaml, stringify as yamlText } from "yaml";
import { writeCluster } from "../../../cli/local/write-cluster.ts";
import { type ErrorCode, QuorateError } from "../../../protocol/errors.ts";
import { loadServerConfig, parseNodeFile, readClusterFile, readKeyFile } from "../../../server/config.ts";
import { eraseKeys } from "../../../server/erase-keys.ts";

let pristine: string;
let folder: string;
let file: string;

beforeAll(async () => {
  pristine = join(mkdtempSync(join(tmpdir(), "quorate-config-")), "cluster");
  await writeCluster({
    directory: pristine,
    replicas: 4,
    hosts: ["127.0.0.1"],
    basePort: 7_000,
    clients: "open",
    signedRequests: false,
  });
});
afterAll(() => rmSync(dirname(pristine), { recursive: true, force: true }));

beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "quorate-config-")), "cluster");
  cpSync(pristine, folder, { recursive: true });
  file = join(folder, "replica-1", "node.yaml");
});
afterEach(() => rmSync(dirname(folder), { recursive: true, force: true }));

const load = (flags: { logLevel?: string; dataDir?: string } = {}, env: Record<string, string> = {}) =>
  loadServerConfig(file, { flags, env });

const change = (settings: Record<string, unknown>): void => {
  writeFileSync(file, yamlText({ ...(parseYaml(readFileSync(file, "utf8")) as object), ...settings }));
};

const refuses = (action: () => unknown, code: ErrorCode, reason: RegExp): void => {
  let thrown: unknown;
  try {
    action();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(QuorateError);
  const error = thrown as QuorateError;
  expect(error.message).toMatch(reason);
  expect(error.code).toBe(code);
  expect(error.message).not.toContain("\n");
};

describe("what loads", () => {
  test("a configuration as kv init writes it, from anywhere", () => {
    const config = load();
    expect(config).toMatchObject({
      file,
      replica: 1,
      clusterPath: join(folder, "cluster.json"),
      keyPath: join(folder, "replica-1", "replica.key"),
      dataDir: join(folder, "replica-1", "data"),
      listen: { host: "127.0.0.1", adminHost: "127.0.0.1", clientPort: 7010, peerPort: 7011, adminPort: 7012 },
      logLevel: "info",
      requestTimeoutMs: 1_000,
      workers: 0,
    });
    expect(config.batch.requestsMax).toBeGreaterThan(0);
    expect(config.member.id).toBe(1);
    expect(Buffer.from(config.identity.signKey)).toEqual(Buffer.from(config.member.signKey));
  });

  test("listen addresses other than the announced one", () => {
    change({ listen: { host: "0.0.0.0", adminHost: "127.0.0.1" } });
    expect(load().listen).toMatchObject({ host: "0.0.0.0", adminHost: "127.0.0.1" });
    change({ listen: { host: "::" } });
    expect(load().listen).toMatchObject({ host: "::", adminHost: "::" });
  });

  test("flag before environment before file before default", () => {
    const env = { QUORATE_LOG_LEVEL: "warn", QUORATE_DATA_DIR: "/env/data" };
    change({ logLevel: "debug", dataDir: "elsewhere" });
    expect(load()).toMatchObject({ logLevel: "debug", dataDir: join(folder, "replica-1", "elsewhere") });
    expect(load({}, env)).toMatchObject({ logLevel: "warn", dataDir: "/env/data" });
    const flags = { logLevel: "error", dataDir: "/flag/data" };
    expect(load(flags, env)).toMatchObject({ logLevel: "error", dataDir: "/flag/data" });
  });

  test("stricter modes than needed", () => {
    chmodSync(join(folder, "replica-1", "replica.key"), 0o400);
    chmodSync(join(folder, "replica-1"), 0o500);
    expect(load().replica).toBe(1);
    chmodSync(join(folder, "replica-1"), 0o700);
  });
});

describe("node.yaml", () => {
  test.each([
    ["replica: [1", /node\.yaml: not YAML: .*line/],
    ["a: 1\na: 2\n", /not YAML: .*unique/],
    ["a: &x [1]\nb: *x\n", /node\.yaml/],
    ["", /must hold settings/],
    ["- 1\n", /must hold settings/],
    ["just text", /must hold settings/],
    ["format: 1\n", /replica: /],
  ])("%j is refused", (text, reason) => {
    writeFileSync(file, text);
    refuses(load, "CONFIG_INVALID", reason);
  });

  test.each([
    [{ color: "red" }, /color/],
    [{ listen: { hots: "x" } }, /hots/],
    [{ format: 2 }, /format/],
    [{ replica: -1 }, /replica/],
    [{ replica: "1" }, /replica/],
    [{ dataDir: "" }, /dataDir/],
    [{ logLevel: "loud" }, /logLevel/],
    [{ workers: -1 }, /workers/],
    [{ workers: 65 }, /workers/],
    [{ requestTimeoutMs: 1 }, /requestTimeoutMs/],
    [{ checkpointPeriod: 127 }, /checkpointPeriod: .*128/],
    [{ batch: { requestsMax: 0 } }, /batch\.requestsMax/],
  ])("%j is refused by name", (settings, reason) => {
    change(settings);
    refuses(load, "CONFIG_INVALID", reason);
  });

  test("defaults fill a minimal file", () => {
    const text = "{format: 1, replica: 0, cluster: c.json, keyFile: k, dataDir: d}";
    expect(parseNodeFile(text, "x")).toMatchObject({ logLevel: "info", listen: {}, requestTimeoutMs: 1_000 });
  });

  test("a replica that is no member, a missing file, a directory", () => {
    change({ replica: 9 });
    refuses(load, "CONFIG_INVALID", /replica: 9 is no member of .*cluster\.json, which has 0, 1, 2, 3/);
    refuses(() => loadServerConfig(join(folder, "none.yaml")), "CONFIG_MISSING", /none\.yaml does not exist; name a/);
    refuses(() => loadServerConfig(folder), "CONFIG_INVALID", /cannot be read \(EISDIR\)/);
  });

  test("settings from outside are checked too", () => {
    refuses(
      () => load({}, { QUORATE_LOG_LEVEL: "loud" }),
      "CONFIG_INVALID",
      /^QUORATE_LOG_LEVEL: "loud" is not one of/,
    );
    refuses(() => load({ logLevel: "" }), "CONFIG_INVALID", /^--log-level: ""/);
    refuses(() => load({}, { QUORATE_DATA_DIR: "" }), "CONFIG_INVALID", /QUORATE_DATA_DIR is empty/);
  });
});

describe("the cluster file", () => {
  const cluster = (): string => join(folder, "cluster.json");

  test("missing, not JSON, wrong shape, impossible sizes", () => {
    const text = readFileSync(cluster(), "utf8");
    writeFileSync(cluster(), "nope");
    refuses(load, "CONFIG_INVALID", /cluster\.json is not JSON/);
    writeFileSync(cluster(), text.replace('"f": 1', '"f": 2'));
    refuses(load, "CONFIG_INVALID", /4 replicas cannot tolerate f=2/);
    writeFileSync(cluster(), text.replace('"mode"', '"extra": 1, "mode"'));
    refuses(() => readClusterFile(cluster()), "CONFIG_INVALID", /extra/);
    rmSync(cluster());
    refuses(load, "CONFIG_MISSING", /cluster\.json does not exist/);
  });
});

describe("key files", () => {
  const key = (): string => join(folder, "replica-1", "replica.key");

  test.each([0o644, 0o640, 0o604, 0o700, 0o660])("mode %o is refused with the command that mends it", (mode) => {
    chmodSync(key(), mode);
    refuses(load, "KEY_FILE_PERMISSIONS", new RegExp(`run: chmod 600 ${key()}$`));
    chmodSync(key(), 0o600);
    expect(load().replica).toBe(1);
  });

  test.each([0o755, 0o710, 0o701, 0o770])("a directory of mode %o is refused likewise", (mode) => {
    chmodSync(dirname(key()), mode);
    refuses(load, "KEY_FILE_PERMISSIONS", new RegExp(`run: chmod 700 ${dirname(key())}$`));
  });

  test("a symbolic link cannot dodge the check of the file it names", () => {
    const elsewhere = join(folder, "open");
    mkdirSync(elsewhere, { mode: 0o755 });
    cpSync(key(), join(elsewhere, "k"));
    chmodSync(join(elsewhere, "k"), 0o644);
    rmSync(key());
    symlinkSync(join(elsewhere, "k"), key());
    refuses(load, "KEY_FILE_PERMISSIONS", /chmod 600/);
    chmodSync(join(elsewhere, "k"), 0o600);
    refuses(load, "KEY_FILE_PERMISSIONS", /chmod 700 .*open$/);
  });

  test("missing, a directory, garbage, another role, another replica's", () => {
    const text = readFileSync(key(), "utf8");
    cpSync(join(folder, "replica-2", "replica.key"), key());
    refuses(load, "KEY_FILE_INVALID", /not those of replica 1 in .*cluster\.json/);
    writeFileSync(key(), "garbage");
    refuses(load, "KEY_FILE_INVALID", /not a key file \(not JSON\)/);
    writeFileSync(key(), text.replace('"replica"', '"client"'));
    refuses(load, "KEY_FILE_INVALID", /role client; name a key file of role replica$/);
    writeFileSync(key(), text.replace(/"signKey": "../, '"signKey": "00'));
    refuses(load, "KEY_FILE_INVALID", /not those of its secrets/);
    rmSync(key());
    refuses(load, "KEY_FILE_UNREADABLE", /does not exist/);
    mkdirSync(key(), { mode: 0o700 });
    refuses(load, "KEY_FILE_UNREADABLE", /is not a file/);
  });

  test("erased when the replica was removed: the refusal says so, until other keys are put there", () => {
    const text = readFileSync(key(), "utf8");
    eraseKeys(key());
    expect([existsSync(key()), statSync(`${key()}.retired`).mode & 0o777]).toEqual([false, 0o600]);
    refuses(load, "REPLICA_RETIRED", /^replica 1 was removed from the cluster .* a new replica.*: kv init --join$/);
    writeFileSync(key(), text, { mode: 0o600 });
    expect(load().replica).toBe(1);
  });

  test("administrator and client keys are read by role", () => {
    expect(readKeyFile(join(folder, "admin.key"), "admin").signKey.length).toBe(32);
    refuses(
      () => readKeyFile(join(folder, "admin.key"), "client"),
      "KEY_FILE_INVALID",
      /role admin; name a key file of role client$/,
    );
  });
});
