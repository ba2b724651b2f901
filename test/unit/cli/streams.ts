/** In-memory streams and temporary folders for tests of the command line. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import type { Io, Network } from "../../../cli/io.ts";
import { run } from "../../../cli/program.ts";

class Collector extends Writable {
  readonly isTTY: boolean;
  readonly #chunks: Buffer[] = [];

  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunks.push(Buffer.from(chunk));
    done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

export interface TestIo extends Io {
  readonly out: () => string;
  readonly outBytes: () => Buffer;
  readonly err: () => string;
}

export function testIo(
  options: { stdin?: string | Uint8Array; env?: Io["env"]; terminal?: boolean; network?: Network } = {},
): TestIo {
  const stdout = new Collector(options.terminal ?? false);
  const stderr = new Collector(options.terminal ?? false);
  const stdin = Readable.from(options.stdin === undefined ? [] : [Buffer.from(options.stdin)]);
  return {
    stdin: Object.assign(stdin, { isTTY: options.terminal ?? false }),
    stdout,
    stderr,
    env: options.env ?? {},
    ...(options.network ? { network: options.network } : {}),
    out: () => stdout.bytes.toString("utf8"),
    outBytes: () => stdout.bytes,
    err: () => stderr.bytes.toString("utf8"),
  };
}

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs one command line in this process. */
export async function kv(argv: readonly string[], options: Parameters<typeof testIo>[0] = {}): Promise<Ran> {
  const io = testIo(options);
  const code = await run(argv, io);
  return { code, out: io.out(), err: io.err() };
}

/** A new temporary folder; `remove` deletes it. */
export function temporaryFolder(): { path: string; in: (name: string) => string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "quorate-cli-"));
  return {
    path,
    in: (name) => join(path, name),
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}
