/** What the replicas say about themselves over admin HTTP. Guarantees: an answer is shape-checked, never trusted further. */
import { z } from "zod";
import type { ClusterFile } from "../protocol/cluster.ts";

const count = z.int().min(0);

/** The fields of `/status` that the command line uses; a replica may say more. */
const statusSchema = z.object({
  replica: count,
  view: count,
  regency: count,
  leader: count,
  decided: count,
  executed: count,
  revision: z.union([count, z.string().regex(/^\d{1,16}$/)]).transform(String),
  historyDigest: z.string().max(128),
  state: z.string().max(32).optional(),
  pid: count.optional(),
});
export type ReplicaStatus = z.output<typeof statusSchema>;

export interface StatusAnswer {
  readonly replica: number;
  readonly host: string;
  readonly adminPort: number;
  readonly status: ReplicaStatus | null;
  /** Why there is no status. */
  readonly problem: string | null;
}

export type Member = ClusterFile["members"][number];

/** Asks every replica at once; resolves when all have answered or `timeoutMs` has passed. */
export function askReplicas(file: ClusterFile, timeoutMs: number): Promise<StatusAnswer[]> {
  return Promise.all(file.members.map((member) => askReplica(member, timeoutMs)));
}

async function askReplica(member: Member, timeoutMs: number): Promise<StatusAnswer> {
  const { id: replica, host, adminPort } = member;
  const about = { replica, host, adminPort };
  const body = await httpGet(adminUrl(member, "/status"), timeoutMs);
  if (body.problem !== null) return { ...about, status: null, problem: body.problem };
  const parsed = statusSchema.safeParse(parseJson(body.text));
  if (!parsed.success) return { ...about, status: null, problem: "answers something else" };
  if (parsed.data.replica !== replica) {
    return { ...about, status: null, problem: `is replica ${parsed.data.replica}` };
  }
  return { ...about, status: parsed.data, problem: null };
}

export function adminUrl({ host, adminPort }: Pick<Member, "host" | "adminPort">, path: string): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${adminPort}${path}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export type HttpAnswer = { readonly text: string; readonly problem: null } | { readonly problem: string };

const ANSWER_BYTES_MAX = 1024 * 1024;

/** GET with a deadline and a bound; never throws. */
export async function httpGet(url: string, timeoutMs: number): Promise<HttpAnswer> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: "error" });
    if (!response.ok || !response.body) return { problem: `HTTP ${response.status}` };
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body) {
      length += chunk.length;
      if (length > ANSWER_BYTES_MAX) return { problem: "answers too much" };
      chunks.push(chunk);
    }
    return { text: Buffer.concat(chunks).toString("utf8"), problem: null };
  } catch (error) {
    return { problem: problemOf(error) };
  }
}

function problemOf(error: unknown): string {
  if (error instanceof DOMException && error.name === "TimeoutError") return "no answer in time";
  const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
  return code === "ECONNREFUSED" ? "not running" : `unreachable (${code ?? "no connection"})`;
}
