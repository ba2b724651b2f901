/**
 * The rules of docs/protocol.md section 3 and the key-value service once more, as plainly as possible: objects and arrays,
 * no cleverness, nothing stored. Slow; obviously what the text says.
 */
import { EMPTY, latin1, utf8 } from "../../../protocol/bytes.ts";
import {
  decodeCommand,
  encodeResolution,
  encodeResult,
  encodeResults,
  type Resolution,
  type Result,
} from "../../../protocol/commands.ts";
import { Writer } from "../../../protocol/layout.ts";
import { decodeResolve, type Request } from "../../../protocol/request.ts";
import type { ClientTableLimits } from "../../../server/service/client-table.ts";

export interface ModelAnswer {
  status: string;
  /** null: gone */
  result: Uint8Array | null;
  instance: number;
}

interface ModelSequence extends ModelAnswer {
  sequence: number;
  digest: string | null;
  age: number;
}

interface ModelSession {
  number: number;
  base: number;
  lastInstance: number;
  sequences: ModelSequence[];
}

interface ModelClient {
  id: string;
  watermark: number;
  lastMs: number;
  sessions: ModelSession[];
}

interface ModelEntry {
  key: string;
  value: Uint8Array;
  createRevision: number;
  modRevision: number;
  version: number;
}

export class Model {
  readonly limits: ClientTableLimits;
  clients: ModelClient[] = [];
  entries: ModelEntry[] = [];
  floor = 0;
  revision = 0;
  instance = 0;
  age = 0;

  constructor(limits: ClientTableLimits) {
    this.limits = limits;
  }

  execute(requests: readonly Request[], now: number): ModelAnswer[] {
    this.instance += 1;
    for (const client of this.clients.filter((one) => now - one.lastMs > this.limits.clientIdleMsMax)) {
      this.clients = this.clients.filter((one) => one !== client);
      this.floor = Math.max(this.floor, client.watermark, ...client.sessions.map((session) => session.number));
    }
    return requests.map((request) => ({
      ...(request.kind === "resolve" ? this.resolve(request, now) : this.ordered(request, now)),
    }));
  }

  lookup(request: Request): ModelAnswer | null {
    const client = this.clients.find((one) => one.id === request.client);
    const session = client?.sessions.find((one) => one.number === request.session);
    if (!session) {
      const expired = Math.max(client?.watermark ?? 0, this.floor);
      return request.session <= expired ? this.expired(expired) : null;
    }
    return this.settled(session, request);
  }

  private answer(status: string, result: Uint8Array = EMPTY): ModelAnswer {
    return { status, result, instance: this.instance };
  }

  private expired(watermark: number): ModelAnswer {
    return this.answer("SESSION_EXPIRED", new Writer(8).u53(watermark).finish());
  }

  private settled(session: ModelSession, request: Request): ModelAnswer | null {
    if (request.sequence < session.base) return this.answer("ACKED");
    const earlier = session.sequences.find((one) => one.sequence === request.sequence);
    if (!earlier) return null;
    return earlier.digest !== null && earlier.digest !== request.digest ? this.answer("SEQUENCE_CONFLICT") : earlier;
  }

  /** The live session, opened if need be, or why not. */
  private open(id: string, number: number, now: number): ModelSession | ModelAnswer {
    let client = this.clients.find((one) => one.id === id);
    const live = client?.sessions.find((one) => one.number === number);
    if (live) return live;
    const expired = Math.max(client?.watermark ?? 0, this.floor);
    if (number <= expired) return this.expired(expired);
    if (number / 1000 > now + this.limits.sessionAheadMsMax) return this.answer("REFUSED", utf8("SESSION_AHEAD"));
    if (!client) {
      if (this.clients.length >= this.limits.maxClients) return this.answer("REFUSED", utf8("CLIENTS_FULL"));
      client = { id, watermark: 0, lastMs: now, sessions: [] };
      this.clients.push(client);
    }
    const session: ModelSession = { number, base: 1, lastInstance: this.instance, sequences: [] };
    if (client.sessions.length === this.limits.sessionsMax) {
      client.sessions.sort((a, b) => a.lastInstance - b.lastInstance || a.number - b.number);
      client.watermark = Math.max(client.watermark, client.sessions.shift()?.number ?? 0);
    }
    client.sessions.push(session);
    return session;
  }

  private acked(session: ModelSession, request: Request): void {
    session.base = Math.max(session.base, request.ackedBelow);
    session.sequences = session.sequences.filter((one) => one.sequence >= session.base);
  }

  private used(id: string, now: number): void {
    for (const client of this.clients) if (client.id === id) client.lastMs = now;
  }

  private ordered(request: Request, now: number): ModelAnswer {
    const session = this.open(request.client, request.session, now);
    if ("status" in session) return session;
    this.used(request.client, now);
    this.acked(session, request);
    const settled = this.settled(session, request);
    if (settled) return settled;
    if (request.sequence >= session.base + this.limits.sessionWindow) return this.answer("WINDOW_FULL");
    if (request.deadlineMs !== 0 && now > request.deadlineMs) return this.answer("DEADLINE");
    const result = encodeResults(request.commands.map((command) => encodeResult(this.command(command))));
    const cached = result.length > this.limits.cachedReplyBytesMax ? null : result;
    this.remember(session, request.sequence, { status: "OK", result: cached, digest: request.digest });
    const client = this.clients.find((one) => one.id === request.client);
    const cache = (client?.sessions ?? []).flatMap((one) => one.sequences).sort((a, b) => a.age - b.age);
    let bytes = cache.reduce((sum, one) => sum + (one.result?.length ?? 0), 0);
    for (const oldest of cache) {
      if (bytes <= this.limits.cachedRepliesBytesMax) break;
      if (oldest.status !== "OK") continue;
      bytes -= oldest.result?.length ?? 0;
      oldest.result = null;
    }
    return this.answer("OK", result);
  }

  private remember(
    session: ModelSession,
    sequence: number,
    fields: Pick<ModelSequence, "status" | "result" | "digest">,
  ): void {
    session.lastInstance = this.instance;
    this.age += 1;
    session.sequences.push({ sequence, instance: this.instance, age: this.age, ...fields });
  }

  private resolve(request: Request, now: number): ModelAnswer {
    const target = decodeResolve(request.commands[0] ?? EMPTY);
    if (request.deadlineMs !== 0 && now > request.deadlineMs) return this.answer("DEADLINE");
    const sessions = (): ModelSession[] => this.clients.find((one) => one.id === request.client)?.sessions ?? [];
    const own = sessions().find((one) => one.number === request.session);
    if (own) {
      this.used(request.client, now);
      this.acked(own, request);
    }
    const resolution = (value: Resolution): ModelAnswer => this.answer("OK", encodeResolution(value));
    const base = sessions().find((one) => one.number === target.session)?.base ?? 1;
    if (target.sequence >= base + 2 * this.limits.sessionWindow) return resolution({ type: "unknown" });
    const session = this.open(request.client, target.session, now);
    if ("status" in session) return session.status === "SESSION_EXPIRED" ? resolution({ type: "unknown" }) : session;
    this.used(request.client, now);
    if (target.sequence < session.base) return resolution({ type: "unknown" });
    const earlier = session.sequences.find((one) => one.sequence === target.sequence);
    if (earlier?.status === "CANCELLED") return resolution({ type: "cancelled" });
    if (earlier?.result) return resolution({ type: "replied", status: 0, results: earlier.result });
    if (earlier) return resolution({ type: "executed" });
    this.remember(session, target.sequence, { status: "CANCELLED", result: EMPTY, digest: null });
    return resolution({ type: "cancelled" });
  }

  private command(bytes: Uint8Array): Result {
    const command = decodeCommand(bytes);
    if (command.type === "range") {
      const to = command.to === null ? null : latin1(command.to);
      const inside = this.entries
        .filter((entry) => entry.key >= latin1(command.from) && (to === null || entry.key < to))
        .sort((a, b) => (a.key < b.key ? -1 : 1));
      if (command.reverse) inside.reverse();
      const entries = inside.slice(0, command.limit || undefined).map((entry) => ({
        ...entry,
        key: new Uint8Array(Buffer.from(entry.key, "latin1")),
        value: command.keysOnly ? null : entry.value,
      }));
      return { type: "page", revision: this.revision, more: entries.length < inside.length, entries };
    }
    if (command.type === "noop") throw new Error("not generated");
    const key = latin1(command.key);
    const entry = this.entries.find((one) => one.key === key);
    if (command.type === "get") {
      if (!entry) return { type: "absent", revision: this.revision };
      const { value, createRevision, modRevision, version } = entry;
      return { type: "found", value, createRevision, modRevision, version };
    }
    const condition = command.type === "cas" ? command.expect : command.ifRevision;
    if (condition !== null && condition !== (entry?.modRevision ?? 0)) {
      return { type: "conflict", modRevision: entry?.modRevision ?? 0 };
    }
    if (command.type === "delete") {
      if (!entry) return { type: "absent", revision: this.revision };
      this.entries = this.entries.filter((one) => one !== entry);
      this.revision += 1;
      return { type: "deleted", revision: this.revision };
    }
    this.revision += 1;
    const createRevision = entry?.createRevision ?? this.revision;
    const version = (entry?.version ?? 0) + 1;
    this.entries = this.entries.filter((one) => one !== entry);
    const modRevision = this.revision;
    this.entries.push({ key, value: new Uint8Array(command.value), createRevision, modRevision, version });
    return { type: "written", createRevision, modRevision, version };
  }
}
