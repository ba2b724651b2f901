/** The keys of a replica from view to view (docs/protocol.md section 7). */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { type Identity, keyFileText, newIdentity } from "../../../protocol/identity.ts";
import type { View } from "../../../protocol/view.ts";
import type { DriverLogger } from "../../../server/driver-contract.ts";
import { ReplicaKeys } from "../../../server/replica-keys.ts";
import { viewOfSize } from "./fixture.ts";

const SELF = 2;
const [OLD, NEW, OTHER] = [newIdentity(nodeCrypto), newIdentity(nodeCrypto), newIdentity(nodeCrypto)];

let folder: string;
let keyPath: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quorate-keys-"));
  keyPath = join(folder, "replica.key");
  write(keyPath, OLD);
});
afterEach(() => {
  rmSync(folder, { recursive: true });
  said.length = 0;
});

function write(path: string, identity: Identity): void {
  writeFileSync(path, keyFileText("replica", identity), { mode: 0o600 });
}

/** A view in which replica 2 has these keys. */
function viewWith({ signKey, boxKey }: Identity, id: number): View {
  const view = viewOfSize(4);
  return {
    ...view,
    id,
    members: view.members.map((each) => (each.id === SELF ? { ...each, signKey, boxKey } : each)),
  };
}

const said: string[] = [];
const logger: DriverLogger = {
  info: () => undefined,
  warn: (_detail, message) => said.push(message),
  error: () => undefined,
};
const keysFrom = (identity: Identity) => new ReplicaKeys({ keyPath, self: SELF, identity, logger });

describe("the keys of a replica", () => {
  it("are the next ones from the view on that has them, at a start after it as well", () => {
    write(`${keyPath}.next`, NEW);
    const keys = keysFrom(OLD);
    expect(keys.of(viewWith(OLD, 0))).toBe(OLD);
    expect(keys.of(viewWith(NEW, 1)).signKey).toEqual(NEW.signKey);
    expect([existsSync(`${keyPath}.next`), existsSync(`${keyPath}.rotated`)]).toEqual([false, true]);
    expect(keysFrom(NEW).of(viewWith(NEW, 1))).toBe(NEW);
  });

  it("are those of now in a view from before, and that is said once: whoever lost its data knows no newer one", () => {
    write(`${keyPath}.next`, NEW);
    keysFrom(OLD).of(viewWith(NEW, 1));
    expect(said).toEqual([]);
    const keys = keysFrom(NEW);
    expect([keys.of(viewWith(OLD, 0)), keys.of(viewWith(OLD, 0))]).toEqual([NEW, NEW]);
    expect(said).toEqual([expect.stringMatching(/^view 0 has other keys for this replica than .*replica\.key: /)]);
  });

  it("are refused where they are another replica's", () => {
    expect(() => keysFrom(OTHER).of(viewWith(OLD, 0))).toThrow(expect.objectContaining({ code: "KEY_FILE_INVALID" }));
  });
});
