/** The suite that every implementation of the admin port must pass (server/network/admin.ts). */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Admin, type AdminRoutes, type Health, openAdmin } from "../../../server/network/admin.ts";
import { freePort } from "./free-port.ts";
import { until } from "./tcp-harness.ts";

/** How long something may take that takes a moment, on a machine that stands still now and then. */
const PATIENCE_MS = 20_000;
const GOOD: Health = { ok: true, checks: [{ name: "journal", ok: true, detail: "synced" }] };
const BAD: Health = {
  ok: false,
  checks: [
    { name: "journal", ok: true },
    { name: "quorum", ok: false, detail: "2 of 4 connected" },
  ],
};

export function adminContract(implementation: "uws" | "ws"): void {
  describe(`admin: ${implementation}`, () => {
    let admin: Admin;
    let health: Health;
    let metrics: () => Promise<string>;
    let errors: unknown[];

    beforeEach(async () => {
      health = GOOD;
      metrics = async () => "quorate_view 0\n";
      errors = [];
      const routes: AdminRoutes = {
        livez: () => ({ ok: true, checks: [] }),
        readyz: () => health,
        metrics: () => metrics(),
        status: async () => ({ replica: 1, decided: 5 }),
      };
      const listen = { host: "127.0.0.1", port: 0 };
      admin = await openAdmin({ listen, implementation, routes, onError: (error) => errors.push(error) });
    });
    afterEach(() => admin.close());

    const get = async (path: string, method = "GET") => {
      const response = await fetch(`http://127.0.0.1:${admin.port}${path}`, { method });
      return { response, status: response.status, text: await response.text() };
    };

    test("healthy: 200 and ok, with every check when verbose", async () => {
      for (const path of ["/livez", "/readyz", "/health"]) {
        expect(await get(path)).toMatchObject({ status: 200, text: "ok\n" });
      }
      expect((await get("/readyz?verbose")).text).toBe("[+]journal ok\n    synced\nreadyz passed\n");
    });

    test("not ready: 503 and what failed, while it lives", async () => {
      health = BAD;
      const failed = "[-]quorum failed\n    2 of 4 connected\nreadyz failed\n";
      expect(await get("/readyz")).toMatchObject({ status: 503, text: failed });
      expect(await get("/health")).toMatchObject({ status: 503, text: failed });
      expect(await get("/readyz?verbose")).toMatchObject({ status: 503, text: `[+]journal ok\n${failed}` });
      expect((await get("/livez")).status).toBe(200);
    });

    test("metrics are text, status is JSON, nothing is cached", async () => {
      const metricsAnswer = await get("/metrics");
      expect(metricsAnswer.text).toBe("quorate_view 0\n");
      expect(metricsAnswer.response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      const status = await get("/status");
      expect(JSON.parse(status.text)).toEqual({ replica: 1, decided: 5 });
      expect(status.response.headers.get("content-type")).toBe("application/json; charset=utf-8");
      for (const { response } of [metricsAnswer, status]) {
        expect(response.headers.get("cache-control")).toBe("no-store");
      }
    });

    test("other paths are 404, other methods 405", async () => {
      for (const path of ["/", "/livez/", "/readyz/x", "/metrics%20", "/__proto__"]) {
        expect((await get(path)).status, path).toBe(404);
      }
      for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
        const { status, response } = await get("/status", method);
        expect([status, response.headers.get("allow")]).toEqual([405, "GET"]);
      }
    });

    test("snapshots: bytes as they are, with their status; nothing without the route", async () => {
      expect((await get("/snapshot/offer")).status).toBe(404);
      await admin.close();
      const body = Uint8Array.from({ length: 3_000_000 }, (_, index) => index);
      const asked: object[] = [];
      let status: 200 | 401 | 503 = 200;
      const routes: AdminRoutes = {
        livez: () => GOOD,
        readyz: () => GOOD,
        metrics,
        status: async () => ({}),
        async snapshot(request) {
          const { path, query, authorization } = request;
          asked.push({ path, query, authorization });
          return { status, body };
        },
      };
      admin = await openAdmin({ listen: { host: "127.0.0.1", port: 0 }, implementation, routes });
      const url = `http://127.0.0.1:${admin.port}/snapshot/chunk`;
      const response = await fetch(`${url}?instance=1&root=00&index=2`, { headers: { authorization: "Quorate x" } });
      expect(response.headers.get("content-type")).toBe("application/octet-stream");
      expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), body)).toBe(0);
      await get("/snapshot/offer");
      expect(asked).toEqual([
        { path: "/snapshot/chunk", query: "instance=1&root=00&index=2", authorization: "Quorate x" },
        { path: "/snapshot/offer", query: "", authorization: "" },
      ]);
      status = 401;
      expect((await get("/snapshot/log")).response.headers.get("www-authenticate")).toBe("Quorate");
      status = 503;
      expect((await get("/snapshot/manifest")).response.headers.get("retry-after")).toBe("1");
      for (const path of ["/snapshot", "/snapshot/", "/snapshot/other"]) expect((await get(path)).status).toBe(404);
      expect((await get("/snapshot/offer", "POST")).status).toBe(405);
    });

    test("a route that throws is a 500 without the reason, which goes to onError", async () => {
      metrics = () => Promise.reject(new Error("secret detail"));
      const answer = await get("/metrics");
      expect(answer.status).toBe(500);
      expect(answer.text).not.toContain("secret");
      expect(errors).toMatchObject([{ message: "secret detail" }]);
      expect((await get("/livez")).status).toBe(200);
    });

    test("a caller that leaves before the answer harms nobody", async () => {
      let answer: (text: string) => void = () => undefined;
      let asked: () => void = () => undefined;
      const waiting = new Promise<void>((resolve) => {
        asked = resolve;
      });
      metrics = () => {
        asked();
        return new Promise((resolve) => {
          answer = resolve;
        });
      };
      const request = httpRequest({ host: "127.0.0.1", port: admin.port, path: "/metrics" });
      request.on("error", () => undefined);
      request.end();
      await waiting;
      request.destroy();
      await new Promise((resolve) => setTimeout(resolve, 20));
      answer("late");
      expect((await get("/livez")).status).toBe(200);
      expect(errors).toEqual([]);
    });

    test("connections are bounded, and there is room again when some go", async () => {
      await admin.close();
      const routes: AdminRoutes = { livez: () => GOOD, readyz: () => GOOD, metrics, status: async () => ({}) };
      admin = await openAdmin({ listen: { host: "127.0.0.1", port: 0 }, implementation, routes, socketsMax: 3 });
      let closed = 0;
      const silent = Array.from({ length: 8 }, () => connect({ host: "127.0.0.1", port: admin.port }));
      for (const socket of silent)
        socket
          .resume()
          .on("error", () => undefined)
          .on("close", () => closed++);
      await until(() => closed === 5, "the others to be closed");
      for (const socket of silent) socket.destroy();
      const answered = () =>
        get("/livez").then(
          ({ status }) => status,
          () => 0,
        );
      await expect.poll(answered, { timeout: PATIENCE_MS }).toBe(200);
    });

    test("a port in use is PORT_IN_USE, and closing frees it", async () => {
      const port = await freePort();
      const listen = { host: "127.0.0.1", port };
      const routes = { livez: () => GOOD, readyz: () => GOOD, metrics, status: async () => ({}) };
      await admin.close();
      admin = await openAdmin({ listen, implementation, routes });
      await expect(openAdmin({ listen, implementation, routes })).rejects.toMatchObject({
        code: "PORT_IN_USE",
        message: expect.stringContaining(`port ${port} is in use`),
      });
      await admin.close();
      admin = await openAdmin({ listen, implementation, routes });
      expect(admin.port).toBe(port);
    });
  });
}
