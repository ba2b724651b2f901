/**
 * What the journal remembers of every instance record it holds, so that dropping records needs none of them read: the number of
 * the write that brought it, its size, and whether it has a certificate. Instances are contiguous; 13 bytes for each.
 */
import { assert } from "../protocol/errors.ts";

export class HeldRecords {
  #writes = new Float64Array(1024);
  #sizes = new Uint32Array(1024);
  #accepted = new Uint8Array(1024);
  #count = 0;
  #base: number;
  #bytes = 0;

  /** None held; the first one will be of the instance after `base`. */
  constructor(base: number) {
    this.#base = base;
  }

  get first(): number {
    return this.#base + 1;
  }

  /** The newest instance held, or the base. */
  get last(): number {
    return this.#base + this.#count;
  }

  /** Bytes of all records held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The next instance, or one already held. */
  set(instance: number, record: { write: number; bytes: number; accepted: boolean }): void {
    const at = instance - this.#base - 1;
    assert(at >= 0 && at <= this.#count, "records held are contiguous");
    if (at === this.#writes.length) this.#grow();
    if (at === this.#count) this.#count++;
    else this.#bytes -= this.#sizes[at] as number;
    this.#bytes += record.bytes;
    this.#writes[at] = record.write;
    this.#sizes[at] = record.bytes;
    this.#accepted[at] = record.accepted ? 1 : 0;
  }

  /** The number of the write that brought an instance held. */
  write(instance: number): number {
    return this.#writes[instance - this.#base - 1] as number;
  }

  /** The highest instance below `below` that has a certificate, or 0. */
  newestAccepted(below: number): number {
    const at = this.#accepted.lastIndexOf(1, Math.min(below - 1, this.last) - this.#base - 1);
    return at < 0 || below <= this.first ? 0 : this.#base + 1 + at;
  }

  dropBelow(instance: number): void {
    const dropped = instance - this.first;
    assert(dropped >= 0 && dropped <= this.#count, "only held records are dropped");
    for (let at = 0; at < dropped; at++) this.#bytes -= this.#sizes[at] as number;
    for (const array of [this.#writes, this.#sizes, this.#accepted]) array.copyWithin(0, dropped, this.#count);
    this.#count -= dropped;
    this.#accepted.fill(0, this.#count);
    this.#base = instance - 1;
  }

  /** Whether any record held came with this write. */
  cameWith(write: number): boolean {
    const at = this.#writes.indexOf(write);
    return at >= 0 && at < this.#count;
  }

  /**
   * For a journal that is to begin at `instance`, before write `next`: the lowest write that a record still there came with, and
   * all the writes from it on that no such record came with, in order.
   */
  accountFrom(instance: number, next: number): { writesFrom: number; superseded: number[] } {
    const writes = this.#writes.subarray(instance - this.first, this.#count);
    let writesFrom = next;
    for (const write of writes) if (write < writesFrom) writesFrom = write;
    const present = new Uint8Array(next - writesFrom);
    for (const write of writes) present[write - writesFrom] = 1;
    const superseded: number[] = [];
    for (let at = present.indexOf(0); at >= 0; at = present.indexOf(0, at + 1)) superseded.push(writesFrom + at);
    return { writesFrom, superseded };
  }

  #grow(): void {
    const size = this.#writes.length * 2;
    const grown = <T extends Float64Array | Uint32Array | Uint8Array>(into: T, from: T): T => {
      into.set(from);
      return into;
    };
    this.#writes = grown(new Float64Array(size), this.#writes);
    this.#sizes = grown(new Uint32Array(size), this.#sizes);
    this.#accepted = grown(new Uint8Array(size), this.#accepted);
  }
}
