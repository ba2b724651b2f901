/** Opening a port, with the same errors for every server of a replica (docs/errors.md). */
import type { Server } from "node:net";
import { QuorateError } from "../../protocol/errors.ts";

export interface ListenAddress {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
}

export interface ListenOptions {
  readonly listen: ListenAddress;
  /** What to change when the port cannot be had, as the error message names it. */
  readonly setting: string;
}

/** Resolves with the port once the server listens. @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
export function listening(server: Server, options: ListenOptions): Promise<number> {
  const { listen, setting } = options;
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown): void => reject(listenError({ listen, setting, cause }));
    server.once("error", failed);
    server.listen({ host: listen.host, port: listen.port, exclusive: true }, () => {
      server.off("error", failed);
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : listen.port);
    });
  });
}

/** PORT_IN_USE, or CONFIG_INVALID for an address that cannot be listened on. `setting` names what to change. */
export function listenError(options: ListenOptions & { cause: unknown }): QuorateError {
  const { listen, setting, cause } = options;
  const code = systemCode(cause);
  const detail = { host: listen.host, port: listen.port };
  if (code === "EADDRINUSE") {
    const message = `port ${listen.port} is in use: stop what listens there, or change ${setting} with kv view set-address`;
    return new QuorateError("PORT_IN_USE", message, detail, cause);
  }
  const todo = `check listen in node.yaml, or change host and ${setting} with kv view set-address`;
  const message = `cannot listen on ${listen.host}:${listen.port} (${code}): ${todo}`;
  return new QuorateError("CONFIG_INVALID", message, detail, cause);
}

function systemCode(cause: unknown): string {
  const code = (cause as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "unknown";
}
