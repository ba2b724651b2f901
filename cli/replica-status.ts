/** What the replicas say about themselves over admin HTTP. Guarantees: an answer is shape-checked, never trusted further. */
import { z } from "zod";
import { type ClusterFile, keySchema } from "../protocol/cluster.ts";
import { REPLICAS_MAX } from "../protocol/limits.ts";

const count = z.int().min(0);

/** The fields of `/status` that the command line uses; a replica may say more, and one of an earlier version says less. */
const statusSchema = z.object({
  replica: count,
  cluster: keySchema,
  view: count,
  regency: count,
  leader: count,
  /** Members that have failed as leaders lately, where leaders take turns. */
  onProbation: z.array(count).max(REPLICAS_MAX).optional(),
  decided: count,
  executed: count,
  revision: z.union([count, z.string().regex(/^\d{1,16}$/)]).transform(String),
  historyDigest: z.string().max(128),
  state: z.string().max(32).optional(),
  pid: count.optional(),
  recovery: z
    .object({
      phase: z.string().max(32),
      donor: count.nullable(),
      sources: z.array(count).max(REPLICAS_MAX),
      instance: count,
      bytes: count,
      bytesTotal: count,
      bytesPerSecond: z.number().min(0),
      secondsLeft: z.number().min(0).nullable(),
      startedMs: count,
    })
    .nullable()
    .optional(),
  alarms: z
    .array(z.object({ code: z.string().max(64), detail: z.string().max(1_000), sinceMs: count }))
    .max(100)
    .optional(),
  checkpoints: z
    .object({
      newest: z.object({ instance: count, root: z.string().max(64), bytes: count, chunks: count }).nullable(),
      computing: z.boolean(),
      period: count,
    })
    .optional(),
  log: z.object({ first: count, last: count, bytes: count }).optional(),
  disk: z
    .object({
      journalBytes: count,
      stateBytes: count,
      low: z.boolean().optional(),
      stagingBytes: count.optional(),
      asideBytes: count.optional(),
    })
    .optional(),
});
export type ReplicaStatus = z.output<typeof statusSchema>;
export type RecoveryStatus = NonNullable<ReplicaStatus["recovery"]>;

export interface StatusAnswer {
  readonly replica: number;
  readonly host: string;
  readonly adminPort: number;
  readonly status: ReplicaStatus | null;
  /** Why there is no status. */
  readonly problem: string | null;
}

export type Member = ClusterFile["members"][number];
export type AdminAddress = Pick<Member, "id" | "host" | "adminPort">;

/** Asks every replica at once; resolves when all have answered or `timeoutMs` has passed. */
export function askReplicas({ clusterId, members }: ClusterFile, timeoutMs: number): Promise<StatusAnswer[]> {
  return Promise.all(members.map((member) => askReplica(member, { clusterId, timeoutMs })));
}

/** Who answers at an address may be another replica, or one of another cluster on the same ports: neither is `member`. */
export async function askReplica(
  member: AdminAddress,
  { clusterId, timeoutMs }: { clusterId: string; timeoutMs: number },
): Promise<StatusAnswer> {
  const { id: replica, host, adminPort } = member;
  const about = { replica, host, adminPort };
  const body = await httpGet(adminUrl(member, "/status"), timeoutMs);
  if (body.problem !== null) return { ...about, status: null, problem: body.problem };
  const status = parseStatus(body.text);
  if (!status) return { ...about, status: null, problem: "answers something else" };
  if (status.cluster !== clusterId) return { ...about, status: null, problem: "belongs to another cluster" };
  if (status.replica !== replica) return { ...about, status: null, problem: `is replica ${status.replica}` };
  return { ...about, status, problem: null };
}

/** Null: it is no answer to `/status`. */
export function parseStatus(text: string): ReplicaStatus | null {
  return statusSchema.safeParse(parseJson(text)).data ?? null;
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

export type HttpBytes =
  | { readonly bytes: Uint8Array; readonly problem: null }
  /** `status` when it was answered at all. */
  | { readonly problem: string; readonly status?: number };

const ANSWER_BYTES_MAX = 1024 * 1024;

/** GET with a deadline and a bound; never throws. */
export async function httpGet(url: string, timeoutMs: number): Promise<HttpAnswer> {
  const answer = await httpGetBytes(url, { timeoutMs, bytesMax: ANSWER_BYTES_MAX });
  return answer.problem === null ? { text: Buffer.from(answer.bytes).toString("utf8"), problem: null } : answer;
}

/** The same for bytes. */
export async function httpGetBytes(
  url: string,
  limits: { timeoutMs: number; bytesMax: number; headers?: Record<string, string> },
): Promise<HttpBytes> {
  const { timeoutMs, bytesMax, headers = {} } = limits;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: "error", headers });
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      return { problem: `HTTP ${response.status}`, status: response.status };
    }
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body) {
      length += chunk.length;
      if (length > bytesMax) return { problem: "answers too much" };
      chunks.push(chunk);
    }
    return { bytes: Buffer.concat(chunks), problem: null };
  } catch (error) {
    return { problem: problemOf(error) };
  }
}

function problemOf(error: unknown): string {
  if (error instanceof DOMException && error.name === "TimeoutError") return "no answer in time";
  const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
  return code === "ECONNREFUSED" ? "not running" : `unreachable (${code ?? "no connection"})`;
}
