/** Real links with somebody in between who decides what leaves; all else goes through. */
import type { Links } from "../../server/network/contract.ts";

export abstract class WrappedLinks implements Links {
  readonly port: number;
  protected readonly inner: Links;

  constructor(inner: Links & { readonly port: number }) {
    this.inner = inner;
    this.port = inner.port;
  }

  abstract send(peer: number, payload: Uint8Array): void;

  flush(): void {
    this.inner.flush();
  }

  punish(peer: number, code: string): void {
    this.inner.punish(peer, code);
  }

  connected(): readonly number[] {
    return this.inner.connected();
  }

  queuedBytes(peer: number): number {
    return this.inner.queuedBytes(peer);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
