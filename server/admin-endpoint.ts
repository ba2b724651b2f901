/**
 * The admin port of a replica, which follows its member's address from view to view. Invariant: from the first open to the close
 * one port answers; the next one is open before the one before closes, and where it cannot be opened that one stays.
 */
import type { DriverLogger } from "./driver-contract.ts";
import { type Admin, type AdminOptions, openAdmin } from "./network/admin.ts";

type Listen = AdminOptions["listen"];

export interface AdminEndpointOptions extends Omit<AdminOptions, "listen" | "onError"> {
  readonly logger: DriverLogger;
}

export class AdminEndpoint {
  readonly #options: AdminEndpointOptions;
  #admin: Admin;
  #listen: Listen;
  #moving: Promise<void> = Promise.resolve();

  private constructor(options: AdminEndpointOptions, listen: Listen, admin: Admin) {
    this.#options = options;
    this.#listen = listen;
    this.#admin = admin;
  }

  /** @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
  static async open(options: AdminEndpointOptions, listen: Listen): Promise<AdminEndpoint> {
    return new AdminEndpoint(options, listen, await openAt(options, listen));
  }

  get url(): string {
    return `http://${this.#listen.host}:${this.#admin.port}/`;
  }

  /** Resolves when it answers there, or it is logged why it cannot. */
  move(listen: Listen): Promise<void> {
    this.#moving = this.#moving.then(() => this.#move(listen));
    return this.#moving;
  }

  async #move(listen: Listen): Promise<void> {
    if (listen.host === this.#listen.host && listen.port === this.#listen.port) return;
    const { logger } = this.#options;
    let next: Admin;
    try {
      next = await openAt(this.#options, listen);
    } catch (error) {
      logger.error({ error: String(error), ...listen }, `the admin port stays at ${this.url}`);
      return;
    }
    const before = this.#admin;
    this.#admin = next;
    this.#listen = listen;
    await before.close();
    logger.info({ ...listen }, "the admin port has moved");
  }

  async close(): Promise<void> {
    await this.#moving;
    await this.#admin.close();
  }
}

function openAt(options: AdminEndpointOptions, listen: Listen): Promise<Admin> {
  const { logger, ...rest } = options;
  return openAdmin({
    ...rest,
    listen,
    onError: (error) => logger.warn({ error: String(error) }, "an admin request failed"),
  });
}
