/**
 * Saves a snapshot of a running cluster into one file (docs/snapshot-format.md). Guarantees: the file appears under its name
 * only when it is complete and was verified as `kv snapshot verify` does; memory stays bounded, whatever its size.
 */
import { rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { hex, utf8 } from "../../protocol/bytes.ts";
import { type ClusterFile, clusterFileText } from "../../protocol/cluster.ts";
import { encode } from "../../protocol/codec.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection, QuorateError } from "../../protocol/errors.ts";
import { type ChunkSummary, decodeManifest } from "../../protocol/image.ts";
import { encodeMessage, imageHeaderSchema, type MessageOf } from "../../protocol/messages.ts";
import { type Member, memberOf, type View } from "../../protocol/view.ts";
import { encodeLink, type ViewChain } from "../../protocol/view-chain.ts";
import { SnapshotWriter } from "../../server/snapshot/file.ts";
import { provenBatches, provenPrefix } from "../../server/snapshot/history-proof.ts";
import { type SnapshotSummary, verifySnapshot } from "../../server/snapshot/verify.ts";
import { type AdminClient, DENIED } from "./admin-client.ts";
import { type CheckedOffer, checkedOffer, credibleDecided, holdsLog, type Plan, plansOf } from "./plan.ts";

const ASK_AGAIN_MS = 500;

export interface SavePhase {
  readonly phase: "asking" | "chunks" | "log" | "verifying";
  /** 0 to 1, or null while it is not known. */
  readonly share: number | null;
  readonly bytes: number;
  readonly donor: number | null;
}

export interface SaveOptions {
  readonly crypto: Crypto;
  readonly clusterFile: ClusterFile;
  /** From the cluster file's view to the one in force. */
  readonly chain: ViewChain;
  readonly client: AdminClient;
  readonly path: string;
  /** Must it hold what was decided before? Else the first checkpoint that can be proven will do. */
  readonly fresh: boolean;
  /** How long to wait until enough replicas offer what is needed. */
  readonly waitMs: number;
  readonly onPhase: (phase: SavePhase) => void;
  /** A donor or source that failed: the next one is tried. */
  readonly onTrouble: (line: string) => void;
}

/** Why one plan came to nothing. */
class PlanFailed extends Error {}

/** Why a member offers nothing. */
interface Problem {
  readonly text: string;
  /** Of HTTP, when it answered at all. */
  readonly status: number | undefined;
}

/** @throws QuorateError QUORUM_UNAVAILABLE, NOT_PERMITTED, SNAPSHOT_INVALID; DECODE_FAILED when the cluster runs another service */
export async function saveSnapshot(options: SaveOptions): Promise<SnapshotSummary> {
  const { crypto, path, clusterFile, onTrouble } = options;
  const temporary = `${path}.tmp`;
  const tried = new Set<string>();
  /** Donors whose state is none of a key-value store. */
  const foreign = new Set<number>();
  try {
    for (;;) {
      const { plan, offers } = await choosePlan(options, tried);
      tried.add(nameOf(plan));
      try {
        await new Download(options, plan, offers).into(temporary);
        options.onPhase({ phase: "verifying", share: null, bytes: plan.header.bytes, donor: plan.donor });
        const scratchParent = dirname(resolve(path));
        const { summary, state } = await verifySnapshot({ file: temporary, crypto, clusterFile, scratchParent });
        await state.close();
        await rename(temporary, path);
        return summary;
      } catch (error) {
        const invalid = error instanceof QuorateError && error.code === "SNAPSHOT_INVALID";
        if (!invalid && !(error instanceof PlanFailed)) throw error;
        onTrouble(`with replica ${plan.donor} as the donor: ${(error as Error).message}`);
        if (invalid && error.detail.foreign === true) foreign.add(plan.donor);
        if (foreign.size >= options.chain.newest.weakQuorum) throw anotherService();
      }
    }
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Said once more donors show it than can be liars. */
function anotherService(): QuorateError {
  const why = "this cluster runs another service than the key-value store";
  return new QuorateError("DECODE_FAILED", `${why}; kv snapshot is for that store alone`);
}

function nameOf({ donor, root, end, roots }: Plan): string {
  return [donor, hex(root), end, roots.length].join(":");
}

/**
 * Asks until there is a plan that was not tried. What was decided when the command began is in it: fresh checkpoints are asked
 * for, as there is seldom one so young.
 */
async function choosePlan(
  options: SaveOptions,
  tried: ReadonlySet<string>,
): Promise<{ plan: Plan; offers: CheckedOffer[] }> {
  const { crypto, chain, waitMs } = options;
  const view = chain.newest;
  const untilMs = performance.now() + waitMs;
  let least: number | null = null;
  let rootsFrom = 0;
  let decidedBefore = -1;
  for (;;) {
    options.onPhase({ phase: "asking", share: null, bytes: 0, donor: null });
    const { offers, problems } = await askAll(options, rootsFrom);
    const decided = credibleDecided(view, offers);
    if (offers.length >= view.weakQuorum) least ??= decided;
    const fresh = (candidate: Plan): boolean => !options.fresh || (least !== null && candidate.end >= least);
    const plan = plansOf(crypto, chain, offers).find((candidate) => fresh(candidate) && !tried.has(nameOf(candidate)));
    if (plan) return { plan, offers };
    // Nobody decides any more: only roots at the last instance of all can be proven.
    if (rootsFrom === 0 || decided === decidedBefore) rootsFrom = decided;
    decidedBefore = decided;
    if (isDenied(view, offers, problems)) throw denied();
    if (performance.now() >= untilMs || (offers.length < view.weakQuorum && problems.every(isRefusal))) {
      throw noPlan(options, offers, problems);
    }
    await pause(ASK_AGAIN_MS);
  }
}

function isRefusal({ status }: Problem): boolean {
  return status !== undefined && status >= 400 && status < 500;
}

/** More say so than can be faulty, and the others cannot make a snapshot. */
function isDenied({ weakQuorum }: View, offers: readonly CheckedOffer[], problems: readonly Problem[]): boolean {
  return offers.length < weakQuorum && problems.filter(({ status }) => status === DENIED).length >= weakQuorum;
}

function denied(): QuorateError {
  const why = "this client may not read every key, which a snapshot takes";
  const todo = "ask an administrator for: kv client grant --keys HEX --read ''";
  return new QuorateError("NOT_PERMITTED", `${why}; ${todo} (or this machine's clock is off)`);
}

function noPlan({ chain }: SaveOptions, offers: readonly CheckedOffer[], problems: readonly Problem[]): QuorateError {
  const { weakQuorum, n } = chain.newest;
  const enough = offers.length >= weakQuorum;
  const why = enough
    ? `no checkpoint of ${offers.length} replicas is vouched for by ${weakQuorum} of them yet; try again, with a longer --timeout`
    : `${offers.length} of ${n} replicas offer anything and ${weakQuorum} are needed`;
  const said = problems.length === 0 ? "" : ` (${problems.map(({ text }) => text).join("; ")})`;
  return new QuorateError("QUORUM_UNAVAILABLE", `${why}${said}`);
}

async function askAll(
  options: SaveOptions,
  rootsFrom: number,
): Promise<{ offers: CheckedOffer[]; problems: Problem[] }> {
  const { client, crypto, chain } = options;
  const problems: Problem[] = [];
  const answers = await Promise.all(
    chain.newest.members.map(async (member) => {
      const told = await client.offer(member, rootsFrom);
      if (told.value) return [checkedOffer(crypto, chain, member.id, told.value)];
      problems.push({ text: `replica ${member.id}: ${told.problem}`, status: told.status });
      return [];
    }),
  );
  return { offers: answers.flat(), problems };
}

/** One plan carried out. */
class Download {
  readonly #options: SaveOptions;
  readonly #plan: Plan;
  readonly #offers: readonly CheckedOffer[];

  constructor(options: SaveOptions, plan: Plan, offers: readonly CheckedOffer[]) {
    this.#options = options;
    this.#plan = plan;
    this.#offers = offers;
  }

  async into(path: string): Promise<void> {
    const manifest = await this.#manifest();
    const writer = await SnapshotWriter.create(path);
    try {
      await writer.add("cluster", utf8(clusterFileText(this.#options.clusterFile)));
      for (const link of this.#options.chain.linksFrom(0)) await writer.add("link", encodeLink(link));
      await writer.add("header", encode(imageHeaderSchema, this.#plan.header));
      await writer.add("manifest", manifest.bytes);
      await this.#chunks(writer, manifest.chunks);
      await this.#log(writer);
      await writer.addRoots(this.#plan.roots);
      await writer.finish();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  #member(replica: number): Member {
    return memberOf(this.#options.chain.newest, replica) as Member;
  }

  async #manifest(): Promise<{ bytes: Uint8Array; chunks: readonly ChunkSummary[] }> {
    const { donor, header, root } = this.#plan;
    const { value, problem } = await this.#options.client.manifest(this.#member(donor), {
      instance: header.instance,
      root,
    });
    if (!value) throw new PlanFailed(`its manifest: ${problem}`);
    const chunks = decoded(() => decodeManifest(value.manifest));
    if (isRejection(chunks) || this.#options.crypto.sha256(value.manifest) !== header.manifest) {
      throw new PlanFailed("its manifest is wrong");
    }
    return { bytes: value.manifest, chunks };
  }

  /** One is written while the next is on its way. */
  async #chunks(writer: SnapshotWriter, chunks: readonly ChunkSummary[]): Promise<void> {
    const { donor, header } = this.#plan;
    let next = chunks.length > 0 ? this.#chunk(0, chunks) : null;
    let bytes = 0;
    for (let index = 0; next; index++) {
      const chunk: Uint8Array = await next;
      next = index + 1 < chunks.length ? this.#chunk(index + 1, chunks) : null;
      // It is awaited in the next round, if that comes.
      next?.catch(() => {});
      await writer.add("chunk", chunk);
      bytes += chunk.length;
      this.#options.onPhase({ phase: "chunks", share: bytes / header.bytes, bytes, donor });
    }
  }

  async #chunk(index: number, chunks: readonly ChunkSummary[]): Promise<Uint8Array> {
    const { donor, header, root } = this.#plan;
    const checkpoint = { instance: header.instance, root };
    const { value, problem } = await this.#options.client.chunk(this.#member(donor), checkpoint, index);
    if (!value) throw new PlanFailed(`chunk ${index + 1} of ${chunks.length}: ${problem}`);
    if (this.#options.crypto.sha256(value.chunk) !== chunks[index]?.digest) {
      throw new PlanFailed(`chunk ${index + 1} of ${chunks.length} is wrong`);
    }
    return value.chunk;
  }

  async #log(writer: SnapshotWriter): Promise<void> {
    const { header, end } = this.#plan;
    let at = { instance: header.instance, digest: header.digest };
    while (at.instance < end) {
      const segment = await this.#segment(at.instance + 1, at.digest);
      await writer.add("history", encodeMessage(segment.message));
      at = segment.last;
      const share = (at.instance - header.instance) / (end - header.instance);
      this.#options.onPhase({ phase: "log", share, bytes: writer.bytes, donor: segment.source });
    }
  }

  /** From whoever has it and tells the truth; the donor last, as it has the most to do. */
  async #segment(from: number, previous: string) {
    const { crypto, chain, client } = this.#options;
    const { donor, end } = this.#plan;
    const sources = this.#offers.filter((offer) => holdsLog(offer, from)).map(({ replica }) => replica);
    let trouble = "nobody has it";
    for (const source of sources.sort((a, b) => Number(a === donor) - Number(b === donor))) {
      const { value, problem } = await client.history(this.#member(source), { from, to: end });
      if (!value) {
        trouble = `replica ${source} ${problem}`;
        continue;
      }
      if (value.from !== from || value.previous !== previous) {
        trouble = `replica ${source} has another history below`;
        continue;
      }
      const proven = provenBatches(crypto, chain, value);
      const last = proven[Math.min(proven.length, end - from + 1) - 1];
      if (last) return { source, last, message: this.#provenUpTo(value, last.instance) };
      trouble = `replica ${source} does not prove it`;
    }
    throw new PlanFailed(`the log from instance ${from} on: ${trouble}`);
  }

  #provenUpTo(history: MessageOf<"HISTORY">, instance: number): MessageOf<"HISTORY"> {
    return provenPrefix(this.#options.crypto, history, instance - history.from + 1);
  }
}
