/**
 * What a replica keeps for the others, and how it checks it (docs/protocol.md section 6): its log and checkpoints, served to
 * whoever lags; the roots of its states, compared with those of the others; and the scrub of what lies on its disk.
 */
import { certificateChecksAt, type ViewAt } from "../../protocol/certificate.ts";
import type { Crypto, Signer } from "../../protocol/crypto/contract.ts";
import type { Certificate, Message, MessageOf, SignedRoot } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import type { StateSnapshot, Storage } from "../../storage/contract.ts";
import type { ImageRequest, OfferFacts } from "../consensus/contract.ts";
import type { Alarm, Clock, DriverObserver } from "../driver-contract.ts";
import type { SnapshotSource } from "../snapshot/access.ts";
import type { Verifier } from "../verifier.ts";
import { type CheckpointStatus, Checkpoints } from "./checkpoints.ts";
import { ImageServer } from "./image-server.ts";
import { LogServer } from "./log-server.ts";
import { Roots } from "./roots.ts";
import { Scrub, type ScrubProgress } from "./scrub.ts";

/** The newest roots are said again to whoever connects: what was announced while a link was down is lost. */
const ROOTS_REPEATED = 4;
/** A replica counts as busy with its clients this long after a request was executed. */
const BUSY_US = 1_000_000;

export interface ArchivePort {
  place(): { readonly view: number; readonly regency: number };
  /** The last executed instance. */
  executed(): number;
  cut(then: (snapshot: StateSnapshot) => void): boolean;
  send(to: ReplicaId, message: Message): void;
  broadcast(message: Message): void;
  queuedBytes(to: ReplicaId): number;
  /** A quorum of the others has another state than this replica. */
  repair(reason: string): void;
  /** Storage failed, or is damaged (QuorateError). */
  failed(error: unknown): void;
}

export interface ArchiveParts {
  readonly crypto: Crypto;
  readonly view: View;
  readonly viewAt: ViewAt;
  /** What roots are bound to. */
  readonly genesis: View;
  readonly self: ReplicaId;
  readonly signer: Signer;
  readonly storage: Storage;
  readonly checkpointPeriod: number;
  readonly settledFrom: number;
  readonly clock: Clock;
  readonly verifier: Verifier;
  readonly observer: DriverObserver;
  readonly port: ArchivePort;
}

/** For `/status`. */
export interface ArchiveStatus {
  readonly checkpoints: CheckpointStatus;
  readonly log: { readonly first: number; readonly last: number; readonly bytes: number };
  readonly scrub: ScrubProgress;
}

export class Archive {
  readonly log: LogServer;
  readonly #parts: ArchiveParts;
  readonly #checkpoints: Checkpoints;
  readonly #images: ImageServer;
  readonly #roots: Roots;
  readonly #scrub: Scrub;
  #busyUntilUs = 0;

  constructor(parts: ArchiveParts) {
    this.#parts = parts;
    const { crypto, view, self, signer, storage, clock, verifier, observer, port } = parts;
    const { checkpointPeriod: period, settledFrom } = parts;
    const { journal, state } = storage;
    const busy = (): boolean => clock.nowUs() < this.#busyUntilUs;
    const { place, send, failed } = port;
    this.log = new LogServer(journal, { place, send, failed, holds: (certificate) => this.#holds(certificate) });
    this.#roots = new Roots({
      view,
      self,
      verifier,
      port: {
        wallMs: () => clock.wallMs(),
        misbehaved: (replica, code) => observer.fault("message", replica, code),
        mismatch: (replica, instance) => observer.rootMismatch(replica, instance),
        repair: ({ instance, replicas }) =>
          port.repair(`replicas ${replicas.join(", ")} have another state after instance ${instance}`),
      },
    });
    this.#checkpoints = new Checkpoints({
      crypto,
      view,
      genesis: parts.genesis,
      self,
      signer,
      journal,
      state,
      period,
      settledFrom,
      clock,
      port: {
        executed: () => port.executed(),
        cut: (then) => port.cut(then),
        busy,
        announce: (root) => this.#announce(root),
        completed: (checkpoint) => observer.checkpoint(checkpoint),
        failed,
      },
    });
    const serving = { place, send, failed, busy, queuedBytes: (to: ReplicaId) => port.queuedBytes(to) };
    this.#images = new ImageServer({ images: this.#checkpoints.images, clock, port: serving });
    this.#scrub = new Scrub({
      crypto,
      cluster: view.cluster,
      journal,
      state,
      port: { clock, wallMs: () => clock.wallMs(), damaged: failed, failed },
    });
    for (const root of this.#checkpoints.roots()) this.#roots.ours(root);
  }

  start(): void {
    this.#checkpoints.start();
    this.#scrub.start();
  }

  /** Before the storage closes. */
  close(): void {
    this.#scrub.stop();
    this.#images.close();
    this.#checkpoints.close();
  }

  #holds(certificate: Certificate): Promise<boolean> {
    const { viewAt, verifier } = this.#parts;
    const checks = certificateChecksAt(viewAt, certificate);
    if (checks === null || checks === "unknown") return Promise.resolve(false);
    return new Promise((resolve) => verifier(checks, (valid) => resolve(valid.every((ok) => ok))));
  }

  get alarms(): readonly Alarm[] {
    return this.#roots.alarms();
  }

  get status(): ArchiveStatus {
    const { base, last, logBytes } = this.#parts.storage.journal;
    const log = { first: base.instance + 1, last, bytes: logBytes };
    return { checkpoints: this.#checkpoints.status, log, scrub: this.#scrub.progress };
  }

  /** `instance` was just executed, and the next one not yet. */
  executed(instance: number, requests: number): void {
    if (requests > 0) this.#busyUntilUs = this.#parts.clock.nowUs() + BUSY_US;
    this.#checkpoints.executed(instance);
  }

  connected(peer: ReplicaId): void {
    for (const root of this.#checkpoints.roots().slice(0, ROOTS_REPEATED)) {
      this.#parts.port.send(peer, this.#rootMessage(root));
    }
  }

  // ---- for the others

  offer(facts: OfferFacts, rootsFrom: number): MessageOf<"OFFER"> {
    this.#checkpoints.requested(rootsFrom);
    const { base, last, logBytes } = this.#parts.storage.journal;
    const logFirst = last > base.instance ? base.instance + 1 : 0;
    const checkpoints = this.#checkpoints.offers();
    return { type: "OFFER", ...facts, logFirst, logBytes, checkpoints, roots: this.#checkpoints.roots() };
  }

  serve(to: ReplicaId, request: ImageRequest): void {
    this.#images.request(to, request);
  }

  /** For clients that save a snapshot, through the admin port. */
  source(facts: () => OfferFacts): SnapshotSource {
    const { journal } = this.#parts.storage;
    const image = (request: ImageRequest) => this.#images.read(request);
    return {
      offer: async (rootsFrom) => this.offer(facts(), rootsFrom),
      manifest: async (checkpoint) => {
        const message = await image({ type: "FETCH_MANIFEST", ...this.#parts.port.place(), ...checkpoint });
        return message.type === "MANIFEST" && message.manifest.length > 0 ? message : null;
      },
      chunk: async (checkpoint, index) => {
        const message = await image({ type: "FETCH_CHUNK", ...this.#parts.port.place(), ...checkpoint, index });
        return message.type === "CHUNK" && message.chunk.length > 0 ? message : null;
      },
      history: async ({ from, to }) => {
        const upTo = Math.min(to, facts().decided, journal.last);
        const message = await this.log.segment(from, upTo);
        return message.batches.length > 0 ? message : null;
      },
    };
  }

  /** The newest root of a state of our own, or null; one at the present instance is begun when it is older than `from`. */
  newestRoot(from: number): SignedRoot | null {
    this.#checkpoints.requested(from);
    return this.#checkpoints.roots()[0] ?? null;
  }

  root(from: ReplicaId, { view, instance, root, signature }: MessageOf<"ROOT">): void {
    this.#roots.received(from, view, { instance, root, signature });
  }

  #announce(root: SignedRoot): void {
    this.#roots.ours(root);
    this.#parts.port.broadcast(this.#rootMessage(root));
  }

  #rootMessage(root: SignedRoot): MessageOf<"ROOT"> {
    return { type: "ROOT", ...this.#parts.port.place(), ...root };
  }
}
