/**
 * The admin port of a replica: GET /livez, /readyz (alias /health), /metrics, /status, which answer anybody, and /snapshot/…,
 * whose route says who may read it. Read-only, without keys or secrets, never cached; on uWebSockets.js or, where that has no
 * binary, on node:http: the same answers, the same suite.
 */
import { createServer } from "node:http";
import { concat, EMPTY } from "../../protocol/bytes.ts";
import { type ListenAddress, listening } from "./listening.ts";
import { socketBudget } from "./socket-budget.ts";
import { boundConnections, type Implementation, listenUws, type Uws, type UwsResponse, uwsFor } from "./uws.ts";

export interface HealthCheck {
  readonly name: string;
  readonly ok: boolean;
  /** One line of why, shown to operators. */
  readonly detail?: string;
}

/** `ok` decides the status (200 or 503); the checks say why. */
export interface Health {
  readonly ok: boolean;
  readonly checks: readonly HealthCheck[];
}

export interface AdminRoutes {
  livez(): Health;
  readyz(): Health;
  /** Prometheus text. */
  metrics(): Promise<string>;
  /** Whatever JSON can hold. */
  status(): Promise<object>;
  /** What stands below /snapshot/; without it there is nothing. */
  snapshot?(request: SnapshotRequest): Promise<SnapshotAnswer>;
  /** The READY of a replica that is to become a member, as JSON; null while it is not ready. */
  ready?(): string | null;
  /** An invitation that administrators signed; false when it is none. */
  invitation?(body: Uint8Array): boolean;
}

export interface SnapshotRequest {
  readonly path: string;
  /** What stands behind the question mark, as it came. */
  readonly query: string;
  /** The header of that name, or empty. */
  readonly authorization: string;
}

export interface SnapshotAnswer {
  readonly status: 200 | 400 | 401 | 404 | 503;
  readonly body: Uint8Array;
}

export interface AdminOptions {
  readonly listen: ListenAddress;
  /** Default "auto". "ws" means node:http here. */
  readonly implementation?: Implementation;
  readonly routes: AdminRoutes;
  /** What to change when the port is taken; default "adminPort". */
  readonly setting?: string;
  /** Connections open at a time; default `socketBudget`. */
  readonly socketsMax?: number;
  /** A route threw: the caller got a 500 without the reason. */
  readonly onError?: (error: unknown) => void;
}

export interface Admin {
  readonly port: number;
  close(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Uint8Array;
}

const TEXT = "text/plain; charset=utf-8";
const METRICS = "text/plain; version=0.0.4; charset=utf-8";
const JSON_TYPE = "application/json; charset=utf-8";
const BYTES = "application/octet-stream";
/** More than any invitation needs. */
const BODY_BYTES_MAX = 16 * 1024;
const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

function headersOf(answer: Answer): Record<string, string> {
  const headers: Record<string, string> = {
    "Content-Type": answer.type,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  };
  if (answer.status === 405) headers.Allow = "GET";
  if (answer.status === 401) headers["WWW-Authenticate"] = "Quorate";
  if (answer.status === 503 && answer.type === BYTES) headers["Retry-After"] = "1";
  return headers;
}

/** Failed checks are always listed, all of them with `?verbose`. */
function healthAnswer(name: string, health: Health, verbose: boolean): Answer {
  const lines: string[] = [];
  for (const check of health.checks) {
    if (check.ok && !verbose) continue;
    lines.push(`[${check.ok ? "+" : "-"}]${check.name} ${check.ok ? "ok" : "failed"}`);
    if (check.detail !== undefined) lines.push(`    ${check.detail}`);
  }
  lines.push(health.ok ? (verbose ? `${name} passed` : "ok") : `${name} failed`);
  return { status: health.ok ? 200 : 503, type: TEXT, body: `${lines.join("\n")}\n` };
}

interface AdminRequest extends SnapshotRequest {
  readonly method: string;
  /** Of a POST; empty when it was larger than any invitation. */
  readonly body: Uint8Array;
}

function invitationAnswer(routes: AdminRoutes, { method, body }: AdminRequest): Answer {
  if (method !== "POST") return { status: 405, type: TEXT, body: "only POST is allowed\n" };
  if (routes.invitation?.(body)) return { status: 204, type: TEXT, body: "" };
  return { status: 400, type: TEXT, body: "no invitation that counts here\n" };
}

/** Never rejects. `query` is what stands behind the question mark. */
async function answerTo(options: AdminOptions, request: AdminRequest): Promise<Answer> {
  const { routes } = options;
  const verbose = new URLSearchParams(request.query).has("verbose");
  try {
    const snapshot = routes.snapshot && SNAPSHOT_PATHS.has(request.path);
    if (request.path === "/invitation" && routes.invitation) return invitationAnswer(routes, request);
    if (!PATHS.has(request.path) && !snapshot) return { status: 404, type: TEXT, body: "not found\n" };
    if (request.method !== "GET") return { status: 405, type: TEXT, body: "only GET is allowed\n" };
    if (routes.snapshot && snapshot) return { type: BYTES, ...(await routes.snapshot(request)) };
    switch (request.path) {
      case "/livez":
        return healthAnswer("livez", routes.livez(), verbose);
      case "/metrics":
        return { status: 200, type: METRICS, body: await routes.metrics() };
      case "/ready": {
        const ready = routes.ready?.() ?? null;
        return ready === null
          ? { status: 404, type: TEXT, body: "not ready\n" }
          : { status: 200, type: JSON_TYPE, body: `${ready}\n` };
      }
      case "/status":
        return { status: 200, type: JSON_TYPE, body: `${JSON.stringify(await routes.status())}\n` };
      default:
        return healthAnswer("readyz", routes.readyz(), verbose);
    }
  } catch (error) {
    options.onError?.(error);
    return { status: 500, type: TEXT, body: "internal error, see the log\n" };
  }
}
const PATHS = new Set(["/ready", "/livez", "/readyz", "/health", "/metrics", "/status"]);
const SNAPSHOT_PATHS = new Set(["/snapshot/offer", "/snapshot/manifest", "/snapshot/chunk", "/snapshot/log"]);

/** The body of a request, which is copied; one that is too large counts as empty. */
class Body {
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  add(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    if (this.#bytes <= BODY_BYTES_MAX) this.#chunks.push(Uint8Array.from(chunk));
    else this.#chunks = [];
  }

  get bytes(): Uint8Array {
    return this.#chunks.length > 0 ? concat(this.#chunks) : EMPTY;
  }
}

async function openUws(uws: Uws, options: AdminOptions): Promise<Admin> {
  const app = uws.App();
  boundConnections(app, options.socketsMax ?? socketBudget().admin);
  app.any("/*", (response, request) => {
    let aborted = false;
    response.onAborted(() => {
      aborted = true;
    });
    const asked = {
      method: request.getMethod().toUpperCase(),
      path: request.getUrl(),
      query: request.getQuery() ?? "",
      authorization: request.getHeader("authorization"),
    };
    const answer = (body: Uint8Array): void => {
      void answerTo(options, { ...asked, body }).then((made) => {
        if (!aborted) sendUws(response, made);
      });
    };
    if (asked.method !== "POST") {
      answer(EMPTY);
      return;
    }
    const body = new Body();
    response.onData((chunk, isLast) => {
      body.add(new Uint8Array(chunk));
      if (isLast) answer(body.bytes);
    });
  });
  const listener = await listenUws(uws, app, { listen: options.listen, setting: options.setting ?? "adminPort" });
  return {
    port: listener.port,
    async close() {
      listener.stop();
      app.close();
    },
  };
}

function sendUws(response: UwsResponse, answer: Answer): void {
  response.cork(() => {
    response.writeStatus(`${answer.status} ${REASONS[answer.status] ?? ""}`);
    for (const [name, value] of Object.entries(headersOf(answer))) response.writeHeader(name, value);
    response.end(answer.body);
  });
}

const REQUEST_MS_MAX = 10_000;

async function openNode(options: AdminOptions): Promise<Admin> {
  const server = createServer(
    { headersTimeout: REQUEST_MS_MAX, requestTimeout: REQUEST_MS_MAX },
    (request, response) => {
      const body = new Body();
      request.on("data", (chunk: Uint8Array) => body.add(chunk));
      const [path = "", ...query] = (request.url ?? "").split("?");
      const { method = "", headers } = request;
      const asked = { method, path, query: query.join("?"), authorization: headers.authorization ?? "" };
      request.on("end", () => {
        void answerTo(options, { ...asked, body: body.bytes }).then((answer) => {
          response.writeHead(answer.status, headersOf(answer)).end(answer.body);
        });
      });
    },
  );
  server.maxConnections = options.socketsMax ?? socketBudget().admin;
  const port = await listening(server, { listen: options.listen, setting: options.setting ?? "adminPort" });
  return {
    port,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

/**
 * Opens the admin port.
 * @throws QuorateError PORT_IN_USE, CONFIG_INVALID; Error when "uws" is demanded and has no binary here
 */
export async function openAdmin(options: AdminOptions): Promise<Admin> {
  const uws = await uwsFor(options.implementation ?? "auto");
  return uws ? openUws(uws, options) : openNode(options);
}
