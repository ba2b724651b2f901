/**
 * Checks the block checksums of LevelDB's table files (`*.ldb`). LevelDB reads without checking them (classic-level does
 * not expose `verify_checksums`), and one flipped bit in an internal key or a filter makes an entry vanish or an old one
 * return, which no digest in a value can show, or fails an assertion of LevelDB's that ends the process.
 *
 * @see https://github.com/google/leveldb/blob/main/doc/table_format.md
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

const FOOTER_BYTES = 48;
const HANDLES_BYTES = 40;
const MAGIC = Buffer.from("57fb808b247547db", "hex");
/** Behind every block: compression type, masked CRC-32C of contents and type. */
const TRAILER_BYTES = 5;
const MASK_DELTA = 0xa282_ead8;

const CRC_TABLES = crcTables();

function crcTables(): readonly Uint32Array[] {
  const first = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    first[byte] = crc;
  }
  const tables = [first];
  for (let index = 1; index < 8; index++) {
    const below = tables[index - 1] as Uint32Array;
    tables.push(below.map((crc) => (crc >>> 8) ^ (first[crc & 0xff] as number)));
  }
  return tables;
}

/** CRC-32C (Castagnoli), eight bytes at a time. */
export function crc32c(bytes: Uint8Array): number {
  type Table = Uint32Array;
  const [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES as [Table, Table, Table, Table, Table, Table, Table, Table];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let crc = -1;
  let at = 0;
  for (; at + 8 <= bytes.length; at += 8) {
    crc ^= view.getInt32(at, true);
    const next = view.getInt32(at + 4, true);
    crc =
      (t7[crc & 0xff] as number) ^
      (t6[(crc >>> 8) & 0xff] as number) ^
      (t5[(crc >>> 16) & 0xff] as number) ^
      (t4[crc >>> 24] as number) ^
      (t3[next & 0xff] as number) ^
      (t2[(next >>> 8) & 0xff] as number) ^
      (t1[(next >>> 16) & 0xff] as number) ^
      (t0[next >>> 24] as number);
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ (t0[(crc ^ (bytes[at] as number)) & 0xff] as number);
  return ~crc >>> 0;
}

/** Reads LevelDB's little-endian varints; anything out of bounds throws a RangeError. */
class Cursor {
  readonly #bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 53; scale *= 128) {
      const byte = this.#bytes.readUInt8(this.at++);
      value += (byte & 0x7f) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("varint too long");
  }

  handle(): { offset: number; size: number } {
    return { offset: this.varint(), size: this.varint() };
  }
}

/** The contents of a block whose checksum is right. @throws RangeError otherwise */
function blockAt(file: Buffer, { offset, size }: { offset: number; size: number }): Buffer {
  const end = offset + size;
  if (end + TRAILER_BYTES > file.length - FOOTER_BYTES) throw new RangeError("block beyond the file");
  const stored = (file.readUInt32LE(end + 1) - MASK_DELTA) >>> 0;
  const crc = ((stored >>> 17) | (stored << 15)) >>> 0;
  if (crc32c(file.subarray(offset, end + 1)) !== crc) throw new RangeError("block checksum");
  return file.subarray(offset, end);
}

/** The block handles that the entries of an index or metaindex block point to. @throws RangeError */
function* handlesIn(block: Buffer): Iterable<{ offset: number; size: number }> {
  const end = block.length - 4 - 4 * block.readUInt32LE(block.length - 4);
  const cursor = new Cursor(block);
  while (cursor.at < end) {
    cursor.varint();
    const keyBytes = cursor.varint();
    const valueBytes = cursor.varint();
    cursor.at += keyBytes;
    yield new Cursor(block, cursor.at).handle();
    cursor.at += valueBytes;
  }
}

/** False when any block of an uncompressed table does not match its checksum, or the file is no whole table. */
export function tableIntact(file: Buffer): boolean {
  if (file.length < FOOTER_BYTES || !file.subarray(-MAGIC.length).equals(MAGIC)) return false;
  try {
    const footer = new Cursor(file.subarray(-FOOTER_BYTES, -FOOTER_BYTES + HANDLES_BYTES));
    const meta = footer.handle();
    const index = footer.handle();
    for (const handle of handlesIn(blockAt(file, meta))) blockAt(file, handle);
    for (const handle of handlesIn(blockAt(file, index))) blockAt(file, handle);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/**
 * The numbers of the table files of a closed LevelDB directory that are damaged, one file in memory at a time. A crash may
 * leave unfinished tables that LevelDB does not use: only those that it lists after opening count.
 */
export async function damagedTables(directory: string): Promise<ReadonlySet<number>> {
  const found = new Set<number>();
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return found;
    throw cause;
  }
  for (const name of names) {
    const number = /^(\d+)\.ldb$/.exec(name)?.[1];
    if (number !== undefined && !tableIntact(await readFile(join(directory, name)))) found.add(Number(number));
  }
  return found;
}
