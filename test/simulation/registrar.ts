/**
 * The administrator of a simulated world: grants the lying client the keys below "a/", less than that, or nothing, again and
 * again, with the production SDK. Correct clients are founding ones and keep all rights.
 */
import { Administration } from "../../client/administration.ts";
import type { Clock } from "../../client/ports.ts";
import { SessionNumbers } from "../../client/session-numbers.ts";
import { hex } from "../../protocol/bytes.ts";
import { QuorateError } from "../../protocol/errors.ts";
import { clientIdOf, publicKeysBytes } from "../../protocol/identity.ts";
import { identityOf } from "./crypto.ts";
import { WALL_START_MS } from "./machine.ts";
import { MALLORY_ENDPOINTS, MALLORY_NAME } from "./mallory.ts";
import type { World } from "./world.ts";

/** Endpoints that a world must have to spare for it, behind the lying client's. */
export const REGISTRAR_ENDPOINTS = 1;
const PAUSE_US = 700_000;
const TIMEOUT_MS = 2_000;
const EVERYTHING = ["a/"];

export class Registrar {
  readonly #world: World;
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
  }

  start(): void {
    this.#act().catch((error: unknown) => this.#world.scheduler.fail(error));
  }

  stop(): void {
    this.#stopped = true;
  }

  async #act(): Promise<void> {
    const { scheduler, trace } = this.#world;
    let administration: Administration | null = null;
    while (!this.#stopped) {
      try {
        administration ??= await this.#open();
        await this.#order(administration);
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
        trace.count(`registrar: ${error.code}`);
      }
      await scheduler.sleep(scheduler.exponential(PAUSE_US));
    }
    await administration?.close();
  }

  async #order(administration: Administration): Promise<void> {
    const { crypto, scheduler, trace } = this.#world;
    const { random } = scheduler;
    const mallory = identityOf(MALLORY_NAME);
    const keys = publicKeysBytes(mallory);
    const roll = random.next();
    if (roll < 0.5) await administration.grant({ keys, read: EVERYTHING, write: EVERYTHING });
    else if (roll < 0.7) await administration.grant({ keys, read: EVERYTHING, write: ["a/0", "a/2"] });
    else if (roll < 0.8) await administration.grant({ keys, read: ["a/1"] });
    else await administration.revoke(hex(clientIdOf(crypto, mallory)));
    trace.count("registrar: orders executed");
  }

  #open(): Promise<Administration> {
    const { scheduler, file, crypto, options } = this.#world;
    const clock: Clock = {
      monotonicMs: () => scheduler.nowUs / 1000,
      wallMs: () => WALL_START_MS + scheduler.nowUs / 1000,
      after: (delayMs, run) => scheduler.after(delayMs * 1000, run),
      turnEnd: (run) => void scheduler.after(0, run),
      random: () => scheduler.random.next(),
    };
    return Administration.open({
      cluster: file,
      administrators: [identityOf("administrator")],
      crypto,
      transport: this.#world.transport(options.clients + MALLORY_ENDPOINTS),
      clock,
      timeoutMs: TIMEOUT_MS,
      sessionNumbers: new SessionNumbers(),
    });
  }
}
