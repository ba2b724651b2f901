/**
 * The admin port of a replica, which follows its member's address from view to view. Invariant: from the first open to the close
 * one port answers; the next one is open before the one before closes, and until it can be opened that one stays.
 */
import type { DriverLogger } from "./driver-contract.ts";
import { type Admin, type AdminOptions, openAdmin } from "./network/admin.ts";

type Listen = AdminOptions["listen"];

const RETRY_MS = 5_000;

export interface AdminEndpointOptions extends Omit<AdminOptions, "listen" | "onError"> {
  readonly logger: DriverLogger;
  /** When to try again where a port could not be opened, in milliseconds. */
  readonly retryMs?: number;
}

export class AdminEndpoint {
  readonly #options: AdminEndpointOptions;
  #admin: Admin;
  #listen: Listen;
  #wanted: Listen;
  #moving: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | null = null;
  #closed = false;

  private constructor(options: AdminEndpointOptions, listen: Listen, admin: Admin) {
    this.#options = options;
    this.#listen = listen;
    this.#wanted = listen;
    this.#admin = admin;
  }

  /** @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
  static async open(options: AdminEndpointOptions, listen: Listen): Promise<AdminEndpoint> {
    return new AdminEndpoint(options, listen, await openAt(options, listen));
  }

  get url(): string {
    return `http://${this.#listen.host}:${this.#admin.port}/`;
  }

  /** Resolves when it answers there, or it is logged why it cannot yet. */
  move(listen: Listen): Promise<void> {
    this.#wanted = listen;
    return this.#try(true);
  }

  #try(first: boolean): Promise<void> {
    this.#moving = this.#moving.then(() => this.#move(first));
    return this.#moving;
  }

  /** To where it was told to go last. */
  async #move(first: boolean): Promise<void> {
    if (this.#retry) clearTimeout(this.#retry);
    const listen = this.#wanted;
    if (this.#closed || (listen.host === this.#listen.host && listen.port === this.#listen.port)) return;
    const { logger, retryMs = RETRY_MS } = this.#options;
    let next: Admin;
    try {
      next = await openAt(this.#options, listen);
    } catch (error) {
      if (first) logger.error({ error: String(error), ...listen }, `the admin port stays at ${this.url} for now`);
      this.#retry = setTimeout(() => void this.#try(false), retryMs);
      return;
    }
    const before = this.#admin;
    this.#admin = next;
    this.#listen = listen;
    await before.close();
    logger.info({ ...listen }, "the admin port has moved");
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#moving;
    if (this.#retry) clearTimeout(this.#retry);
    await this.#admin.close();
  }
}

function openAt(options: AdminEndpointOptions, listen: Listen): Promise<Admin> {
  const { logger, retryMs: _, ...rest } = options;
  return openAdmin({
    ...rest,
    listen,
    onError: (error) => logger.warn({ error: String(error) }, "an admin request failed"),
  });
}
