/** The admin port of a replica that moves (docs/operations.md, `kv view set-address`). */
import { type AddressInfo, createServer, type Server } from "node:net";
import { expect, test } from "vitest";
import { AdminEndpoint } from "../../../server/admin-endpoint.ts";
import type { AdminOptions } from "../../../server/network/admin.ts";
import { until } from "../network/tcp-harness.ts";

const host = "127.0.0.1";
const routes = { livez: () => ({ ok: true, checks: [] }) } as unknown as AdminOptions["routes"];

const answers = (port: number): Promise<boolean> =>
  fetch(`http://${host}:${port}/livez`).then(
    ({ ok }) => ok,
    () => false,
  );

const quiet = () => undefined;
const SILENT = { info: quiet, warn: quiet, error: quiet };

/** Somebody else's, who answers nobody. */
async function takenPort(): Promise<{ taken: Server; port: number }> {
  const taken = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => taken.listen(0, host, resolve));
  return { taken, port: (taken.address() as AddressInfo).port };
}

test("a port that is taken is tried again, once it is said; meanwhile the one before answers", async () => {
  const { taken, port } = await takenPort();
  const lines: string[] = [];
  const say = (_detail: object, message: string) => lines.push(message);
  const logger = { info: say, warn: say, error: say };
  const endpoint = await AdminEndpoint.open({ routes, logger, retryMs: 20 }, { host, port: 0 });
  try {
    const before = Number(new URL(endpoint.url).port);
    await endpoint.move({ host, port });
    expect([await answers(before), lines]).toEqual([true, [`the admin port stays at ${endpoint.url} for now`]]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect([await answers(before), lines.length]).toEqual([true, 1]);
    await new Promise((resolve) => taken.close(resolve));
    await until(() => lines.at(-1) === "the admin port has moved", "the move");
    expect([await answers(port), await answers(before)]).toEqual([true, false]);
  } finally {
    taken.close();
    await endpoint.close();
  }
});

test("told to go elsewhere while it waits for a port, it does not go back there", async () => {
  const { taken, port } = await takenPort();
  const endpoint = await AdminEndpoint.open({ routes, logger: SILENT, retryMs: 20 }, { host, port: 0 });
  try {
    const { url } = endpoint;
    await Promise.all([endpoint.move({ host, port }), endpoint.move({ host, port: 0 })]);
    await new Promise((resolve) => taken.close(resolve));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([endpoint.url, await answers(port)]).toEqual([url, false]);
  } finally {
    taken.close();
    await endpoint.close();
  }
});

test("who closes it before ends the tries", async () => {
  const { taken, port } = await takenPort();
  const endpoint = await AdminEndpoint.open({ routes, logger: SILENT, retryMs: 20 }, { host, port: 0 });
  await endpoint.move({ host, port });
  await endpoint.close();
  await new Promise((resolve) => taken.close(resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await answers(port)).toBe(false);
});
