/**
 * The installed regency and how far it may be used (docs/protocol.md section 5).
 *
 * Invariants: 1. the number only rises. 2. nothing of a regency is sent before it is journaled. 3. a PROPOSE of a regency
 * above 0 counts only above `synced`, the instance of its verified SYNC or of a certificate formed in it.
 */
import { assert } from "../../protocol/errors.ts";
import type { Start } from "./restart.ts";

export class Regency {
  #number: number;
  #durable: number;
  #synced: number | null;

  constructor(start: Pick<Start, "regency" | "newestCertificate">) {
    this.#number = start.regency;
    this.#durable = start.regency;
    this.#synced = start.regency === 0 ? 0 : null;
    const { newestCertificate } = start;
    if (newestCertificate?.regency === start.regency) this.proven(newestCertificate.instance);
  }

  get number(): number {
    return this.#number;
  }

  get journaled(): boolean {
    return this.#durable === this.#number;
  }

  /** The newest one on disk. Others install what they are told: whoever tells them of one must remember it. */
  get durable(): number {
    return this.#durable;
  }

  /** The instance its SYNC was about, or null while no SYNC of it is known. */
  get synced(): number | null {
    return this.#synced;
  }

  /** Another regency: nothing may be sent in it yet. */
  install(number: number): void {
    assert(number > this.#number, "regencies only rise");
    this.#number = number;
    this.#synced = null;
  }

  onDisk(number: number): void {
    this.#durable = Math.max(this.#durable, number);
  }

  /** A SYNC of this regency about this instance was verified, or a certificate or decision at it, which implies one. */
  proven(instance: number): void {
    this.#synced ??= instance;
  }
}
