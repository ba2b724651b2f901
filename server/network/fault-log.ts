/**
 * Faults of peers and clients in the log: counted always, written at most once per period for each kind of fault and whoever
 * committed it, so that an attacker cannot fill the disk (docs/protocol.md section 2).
 */
import type { ReplicaId } from "../../protocol/view.ts";

export interface Fault {
  readonly source: "link" | "gateway" | "message";
  /** The authenticated replica, or null: then the address it came from, without its port, stands in. */
  readonly from: ReplicaId | null;
  readonly code: string;
  /** `host:port` or `host`; may be empty. */
  readonly remote: string;
}

/** The part of a pino logger that is used. */
export interface FaultLogger {
  warn(fields: Record<string, unknown>, message: string): void;
}

export interface FaultLogOptions {
  readonly logger: FaultLogger;
  /** Called for every fault: the metric. */
  readonly count: (fault: Fault) => void;
  /** Milliseconds from any start, never going back. */
  readonly now: () => number;
  /** Default one minute. */
  readonly periodMs?: number;
  /** Kinds remembered at a time; further ones are only counted until others expire. Default 1,024. */
  readonly kindsMax?: number;
}

interface Kind {
  quietUntilMs: number;
  suppressed: number;
}

export class FaultLog {
  readonly #options: FaultLogOptions;
  readonly #periodMs: number;
  readonly #kindsMax: number;
  readonly #kinds = new Map<string, Kind>();

  constructor(options: FaultLogOptions) {
    this.#options = options;
    this.#periodMs = options.periodMs ?? 60_000;
    this.#kindsMax = options.kindsMax ?? 1_024;
  }

  report(fault: Fault): void {
    this.#options.count(fault);
    const nowMs = this.#options.now();
    const who = fault.from === null ? withoutPort(fault.remote) : `replica ${fault.from}`;
    const name = `${fault.source} ${fault.code} ${who}`;
    let kind = this.#kinds.get(name);
    if (!kind) {
      if (this.#kinds.size >= this.#kindsMax) this.#forget(nowMs);
      if (this.#kinds.size >= this.#kindsMax) return;
      kind = { quietUntilMs: nowMs, suppressed: 0 };
      this.#kinds.set(name, kind);
    }
    if (nowMs < kind.quietUntilMs) {
      kind.suppressed++;
      return;
    }
    const { source, from, code, remote } = fault;
    this.#options.logger.warn({ source, from, code, remote, suppressed: kind.suppressed }, `refused: ${name}`);
    kind.quietUntilMs = nowMs + this.#periodMs;
    kind.suppressed = 0;
  }

  #forget(nowMs: number): void {
    for (const [name, kind] of this.#kinds) if (nowMs >= kind.quietUntilMs) this.#kinds.delete(name);
  }
}

/** `host:port` and `[v6]:port` lose the port; a bare address stays as it is. */
function withoutPort(remote: string): string {
  if (remote.startsWith("[")) return remote.slice(1, remote.indexOf("]"));
  const colon = remote.indexOf(":");
  return colon > 0 && remote.lastIndexOf(":") === colon ? remote.slice(0, colon) : remote;
}
