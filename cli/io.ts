/** What a command may touch of the process: the three streams, the environment, the network. Tests pass their own. */
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import type { Transport } from "../client/ports.ts";

export interface OutputStream extends Writable {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface InputStream extends Readable {
  readonly isTTY?: boolean;
}

export interface Io {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Default: the real one. */
  readonly network?: Network;
}

/** How clients' gateways and admin ports are reached. */
export interface Network {
  readonly transport: Transport;
  readonly fetch: typeof fetch;
}

/** Writes a result; waits while the reader of stdout is slow, so that an export never piles up in memory. */
export async function writeOut(io: Io, chunk: string | Uint8Array): Promise<void> {
  if (!io.stdout.write(chunk)) await once(io.stdout, "drain");
}

/** All of stdin, or null as soon as it is longer than `bytesMax`. */
export async function readAll(stream: Readable, bytesMax: number): Promise<Uint8Array | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : (chunk as Buffer);
    length += bytes.length;
    if (length > bytesMax) return null;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
