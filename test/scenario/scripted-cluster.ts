/**
 * A cluster of real cores in which nothing happens by itself: the script says what arrives, what is synced, and when time
 * passes. What the replicas do is collected as lines. Agreement and "nobody votes twice" are checked all along.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { utf8 } from "../../protocol/bytes.ts";
import type { Message, StopData } from "../../protocol/messages.ts";
import { decodeRequest, encodeEnvelope, encodeRequest, type Request } from "../../protocol/request.ts";
import type { Mode } from "../../protocol/view.ts";
import type { Effect, SignatureCheck } from "../../server/consensus/contract.ts";
import { CLUSTER, CoreCluster, ENVELOPE, type SimulatedReplica } from "../simulation/core-cluster.ts";
import { fastCrypto, fastPublicKey } from "../simulation/fast-crypto.ts";
import { Names } from "./names.ts";
import { ScriptError, selector } from "./script.ts";
import { effectWords, journalWords, recordWords } from "./words.ts";

const SIGNED = encodeEnvelope({
  view: 0,
  replier: 0,
  keys: null,
  authenticator: { type: "signature", signature: new Uint8Array(64), mac: "0123456789abcdef" },
});
/** What a good signature of a client comes down to here. */
const CLIENT_SEED = new Uint8Array(32).fill(1);
const CLIENT_STATEMENT = utf8("signed by its client");
const GOOD_SIGNATURE: SignatureCheck = {
  publicKey: fastPublicKey(CLIENT_SEED),
  statement: CLIENT_STATEMENT,
  signature: fastCrypto.signer(CLIENT_SEED)(CLIENT_STATEMENT),
};

/** A scenario that needs more deliveries than this never comes to rest. */
const PASSES_MAX = 1_000;
const SETTLE_STEP_US = 100_000;

/** What one replica, or several alike, did. */
export interface Line {
  readonly actors: number[];
  readonly text: string;
}

export type Held = "journal" | "verify" | "execute";

export interface Sent {
  readonly link: string;
  readonly message: Message;
}

export class ScriptedCluster {
  readonly names = new Names();
  readonly core: CoreCluster;
  readonly byzantine: ReadonlySet<number>;
  /** Signatures of the WRITEs that correct replicas sent. */
  readonly writes = new Map<string, Uint8Array>();
  /** STOPDATAs that correct replicas sent, as "0@r1". */
  readonly stopData = new Map<string, StopData>();
  readonly envelopes = new Map<Digest, Uint8Array>();
  readonly #requests = new Map<string, Request>();
  readonly #provenAt = new Map<Digest, readonly number[]>();
  readonly #held = { journal: new Set<number>(), verify: new Set<number>(), execute: new Set<number>() };
  #blocked: (link: string, type: string) => boolean = () => false;
  #lines: Line[] = [];
  #sequence = 0;

  constructor(options: {
    readonly n: number;
    readonly f: number;
    readonly mode: Mode;
    readonly byzantine: readonly number[];
    readonly rotation: number;
    readonly requestTimeoutMs: number;
  }) {
    this.byzantine = new Set(options.byzantine);
    this.core = new CoreCluster({
      ...options,
      seed: 1,
      tap: (replica, effect) => this.#saw(replica, effect),
      authentic: (replica, request, envelope) => this.#verdict(replica, request, envelope),
    });
    for (const id of options.byzantine) this.replica(id).up = false;
    this.tick(0);
    this.deliverAll();
    this.takeLines();
  }

  get ids(): number[] {
    return this.core.replicas.map((replica) => replica.id);
  }

  replica(id: number): SimulatedReplica {
    const replica = this.core.replicas[id];
    if (!replica) throw new ScriptError(`no replica ${id}`);
    return replica;
  }

  /** Of a correct replica that is up. */
  #able(id: number): SimulatedReplica {
    const replica = this.replica(id);
    if (!replica.up) throw new ScriptError(`replica ${id} is ${this.byzantine.has(id) ? "Byzantine" : "down"}`);
    return replica;
  }

  // ---- what is seen

  say(actor: number, text: string): void {
    // Together with others that did the same, where that keeps the order of what each did.
    for (let at = this.#lines.length - 1; at >= 0; at--) {
      const line = this.#lines[at] as Line;
      if (line.actors.includes(actor)) break;
      if (line.text !== text) continue;
      line.actors.push(actor);
      return;
    }
    this.#lines.push({ actors: [actor], text });
  }

  takeLines(): readonly Line[] {
    const lines = this.#lines;
    this.#lines = [];
    return lines;
  }

  #saw(replica: number, effect: Effect): void {
    const words = effectWords(this.names, effect);
    if (words !== null) this.say(replica, words);
    switch (effect.type) {
      case "journal":
        if (this.#held.journal.has(replica)) {
          this.say(replica, `begins to journal ${journalWords(this.names, effect.records)}`);
        }
        return;
      case "verify":
        if (this.#held.verify.has(replica)) this.say(replica, `begins to verify ${effect.checks.length} signatures`);
        return;
      case "decide":
        this.names.decided(effect.decision);
        return;
      case "send":
      case "broadcast":
        this.#keep(replica, effect.message);
        return;
      default:
        return;
    }
  }

  /** What a forger may use: it was really said. */
  #keep(replica: number, message: Message): void {
    if (message.type === "WRITE") {
      const { regency, instance, digest } = message;
      this.writes.set(`${replica} r${regency} i${instance} ${digest}`, message.signature);
    }
    if (message.type === "STOPDATA") {
      const { record, signature, regency } = message;
      this.stopData.set(`${replica}@r${regency}`, { replica, record, signature });
    }
  }

  // ---- requests

  requestNamed(name: string, client = "nobody"): Request {
    const known = this.#requests.get(name);
    if (known) return known;
    const bytes = encodeRequest({
      cluster: CLUSTER,
      client: this.names.clientNamed(client),
      session: 1,
      sequence: ++this.#sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [utf8(name)],
    });
    const request = decodeRequest(fastCrypto, bytes);
    this.names.nameRequest(request.digest, name);
    this.#requests.set(name, request);
    return request;
  }

  request(
    name: string,
    options: { client: string; to: readonly number[]; provenAt: readonly number[]; signed: boolean },
  ): void {
    const request = this.requestNamed(name, options.client);
    const envelope = options.signed ? SIGNED : ENVELOPE;
    this.#provenAt.set(request.digest, options.provenAt);
    this.envelopes.set(request.digest, envelope);
    // What the intake would refuse does not come to the core.
    const accepting = options.to.filter(
      (id) => options.signed || (options.provenAt.includes(id) && !this.replica(id).demoted.has(request.client)),
    );
    for (const id of accepting) {
      this.core.input(this.replica(id), { type: "request", request, envelope, replier: 0 });
      this.#complete();
    }
    // The leader proposes in a tick: the driver feeds one when requests arrive.
    for (const id of accepting) this.core.tickOne(this.replica(id));
    this.#complete();
  }

  #verdict(replica: number, request: Request, envelope: Uint8Array): boolean | SignatureCheck {
    if (Buffer.compare(envelope, SIGNED) === 0) return GOOD_SIGNATURE;
    return this.#provenAt.get(request.digest)?.includes(replica) ?? false;
  }

  // ---- what arrives

  #take(wanted: (link: string, type: string) => boolean): Sent[] {
    const rounds: Sent[][] = [];
    for (const link of [...this.core.links.keys()].sort()) {
      const queue = this.core.links.get(link) ?? [];
      const taken = queue.filter((message) => wanted(link, message.type));
      this.core.links.set(
        link,
        queue.filter((message) => !wanted(link, message.type)),
      );
      taken.forEach((message, index) => {
        const round = rounds[index] ?? [];
        rounds[index] = round;
        round.push({ link, message });
      });
    }
    // One message of each link after the other: nobody is served first.
    return rounds.flat();
  }

  #arrive({ link, message }: Sent): void {
    const [from, to] = link.split(">").map(Number) as [number, number];
    this.core.input(this.replica(to), { type: "message", from, message });
    this.#complete();
  }

  /** What is on the way now; false when nothing is. */
  deliver(words: readonly string[]): boolean {
    const sent = this.#take(selector(words));
    for (const each of sent) this.#arrive(each);
    return sent.length > 0;
  }

  /** And what is sent in answer, until nothing of it is on the way. */
  deliverAll(words: readonly string[] = []): void {
    for (let pass = 0; pass < PASSES_MAX; pass++) if (!this.deliver(words)) return;
    throw new ScriptError("it never comes to rest");
  }

  /** How many messages were lost, STATUS aside. */
  drop(words: readonly string[]): number {
    return this.#take(selector(words)).filter(({ message }) => message.type !== "STATUS").length;
  }

  block(words: readonly string[]): void {
    const before = this.#blocked;
    const also = selector(words);
    this.#blocked = (link, type) => before(link, type) || also(link, type);
    this.#take(this.#blocked);
  }

  unblock(): void {
    this.#blocked = () => false;
  }

  post(from: number, to: number, message: Message): void {
    const link = `${from}>${to}`;
    const queue = this.core.links.get(link);
    if (queue) queue.push(message);
    else this.core.links.set(link, [message]);
  }

  // ---- what completes

  hold(what: Held, ids: readonly number[]): void {
    for (const id of ids) this.#held[what].add(id);
  }

  release(what: Held, ids: readonly number[]): void {
    for (const id of ids) this.#held[what].delete(id);
    this.#complete();
  }

  /** Whatever is not held completes at once. */
  #complete(): void {
    let idle: boolean;
    do {
      idle = true;
      for (const replica of this.core.replicas) {
        if (!replica.up) continue;
        if (replica.verifying.length > 0 && !this.#held.verify.has(replica.id)) idle = this.#verify(replica);
        if (replica.journaling.length > 0 && !this.#held.journal.has(replica.id)) idle = this.#journal(replica);
        const [next] = replica.toExecute;
        if (next && next.instance <= replica.durableUpTo && !this.#held.execute.has(replica.id)) {
          this.core.executeOne(replica);
          idle = false;
        }
      }
    } while (!idle);
    this.#take(this.#blocked);
  }

  #verify(replica: SimulatedReplica): false {
    const { valid } = replica.verifying[0] ?? { valid: [] };
    const invalid = valid.filter((each) => !each).length;
    if (invalid > 0) this.say(replica.id, `finds ${invalid} of ${valid.length} signatures invalid`);
    this.core.verifyOne(replica);
    return false;
  }

  #journal(replica: SimulatedReplica): false {
    this.say(replica.id, `journals ${journalWords(this.names, replica.journaling[0]?.records ?? [])}`);
    this.core.journalOne(replica);
    return false;
  }

  // ---- time, crashes

  tick(us: number, ids: readonly number[] = this.ids): void {
    this.core.nowUs += us;
    for (const id of ids) {
      this.core.tickOne(this.replica(id));
      this.#complete();
    }
  }

  settle(us: number): void {
    for (let passed = 0; passed < us; passed += SETTLE_STEP_US) {
      this.tick(SETTLE_STEP_US);
      this.deliverAll();
    }
  }

  crash(id: number, kept: number): void {
    const replica = this.#able(id);
    const written = replica.journaling.slice(0, kept).flatMap((pending) => pending.records);
    this.core.crash(id, kept);
    this.say(id, written.length > 0 ? `crashes, having journaled ${journalWords(this.names, written)}` : "crashes");
    this.#forget(id);
  }

  stop(id: number): void {
    this.#able(id);
    this.core.stopCleanly(id);
    this.#forget(id);
  }

  #forget(id: number): void {
    for (const held of Object.values(this.#held)) held.delete(id);
  }

  restart(id: number): void {
    if (this.replica(id).up || this.byzantine.has(id)) throw new ScriptError(`replica ${id} is not down`);
    this.core.restart(id);
    this.#complete();
  }

  /** Its links break; what is on the way is lost. */
  cut(id: number): void {
    for (const other of this.ids) if (other !== id) this.core.cut(id, other);
  }

  /** Fresh links stand: both ends send again what may be lost. */
  mend(id: number): void {
    for (const other of this.ids) if (other !== id) this.core.mend(id, other);
    this.#complete();
  }

  drain(id: number): void {
    this.core.input(this.#able(id), { type: "draining" });
    this.#complete();
  }

  // ---- where everybody stands

  describe(): void {
    for (const replica of this.core.replicas) {
      const { id } = replica;
      if (this.byzantine.has(id)) continue;
      if (!replica.up) {
        this.say(id, "is down");
        continue;
      }
      const { state } = replica.core;
      const { instance, digest } = state.lastDecided;
      const wanted = state.wantedRegency > state.regency ? ` wanting r${state.wantedRegency}` : "";
      const parts = [
        `is in r${state.regency}${wanted}`,
        state.synchronized ? `led by ${state.leader}` : `without the SYNC of ${state.leader}`,
        `decided ${instance === 0 ? "nothing" : `i${instance} ${this.names.digest(digest)}`}`,
        `pending ${state.pendingRequests}`,
      ];
      if (state.abstainingUntil > 0) parts.push(`abstaining until i${state.abstainingUntil}`);
      this.say(id, parts.join(", "));
    }
  }

  disk(id: number): string[] {
    const { disk } = this.replica(id);
    const records = [...disk.instances.values()].sort((a, b) => a.instance - b.instance);
    return [
      `regency ${disk.regency}`,
      ...records.map((record) =>
        record.certificate
          ? `accepted ${recordWords(this.names, record.certificate)}`
          : `decided i${record.instance} ${this.names.digest(record.digest)}`,
      ),
    ];
  }
}
