import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { latin1, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { Malformed } from "../../../protocol/errors.ts";
import {
  ChunkBuilder,
  type ChunkSummary,
  decodeChunk,
  decodeManifest,
  encodeManifest,
  imageHeader,
  rootOf,
  rootStatement,
} from "../../../protocol/image.ts";
import {
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  CHUNK_BYTES_TARGET,
  KEY_BYTES_MAX,
  VALUE_BYTES_MAX,
} from "../../../protocol/limits.ts";
import { CLUSTER, someEntries, viewOfSize } from "../server/fixture.ts";

const view = viewOfSize(4);
const place = { instance: 9, digest: nodeCrypto.sha256(utf8("h(9)")), timestampMs: 17 };

function chunksOf(entries: Iterable<readonly [string, Uint8Array]>): Uint8Array[] {
  const builder = new ChunkBuilder();
  const chunks: Uint8Array[] = [];
  for (const [key, value] of entries) {
    if (builder.add(key, value)) chunks.push(Uint8Array.from(builder.take() as Uint8Array));
  }
  const rest = builder.take();
  if (rest) chunks.push(Uint8Array.from(rest));
  return chunks;
}

const summaries = (chunks: readonly Uint8Array[]): ChunkSummary[] =>
  chunks.map((chunk) => ({ digest: nodeCrypto.sha256(chunk), bytes: chunk.length }));

/** Nothing else may come out of bytes of a peer. */
function malformedOr<T>(decode: () => T): T | "malformed" {
  try {
    return decode();
  } catch (error) {
    if (error instanceof Malformed) return "malformed";
    throw error;
  }
}

const bytes = fc.uint8Array({ maxLength: 60 });
const sortedEntries = fc
  .uniqueArray(fc.tuple(bytes.map(latin1), bytes), { selector: ([key]) => key, minLength: 1, maxLength: 30 })
  .map((entries) => entries.sort(([a], [b]) => (a < b ? -1 : 1)));

describe("chunks", () => {
  it("decode to what was put in", () => {
    fc.assert(
      fc.property(sortedEntries, (entries) => {
        const [chunk, ...others] = chunksOf(entries);
        expect(others).toEqual([]);
        const decodedEntries = decodeChunk(chunk as Uint8Array).map(([key, value]) => [key, [...value]]);
        expect(decodedEntries).toEqual(entries.map(([key, value]) => [key, [...value]]));
      }),
    );
  });

  it("random bytes are malformed or decode to a chunk with that one encoding", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (input) => {
        const entries = malformedOr(() => decodeChunk(input));
        if (entries !== "malformed") expect(chunksOf(entries)).toEqual([Uint8Array.from(input)]);
      }),
      { numRuns: 2_000 },
    );
  });

  it("damage to a good one never throws anything but Malformed", () => {
    fc.assert(
      fc.property(sortedEntries, fc.nat(), fc.nat(255), fc.nat(8), (entries, at, byte, cut) => {
        const chunk = chunksOf(entries)[0] as Uint8Array;
        const damaged = Uint8Array.from(chunk.subarray(0, Math.max(0, chunk.length - cut)));
        if (damaged.length > 0) damaged[at % damaged.length] = byte;
        malformedOr(() => decodeChunk(damaged));
      }),
      { numRuns: 1_000 },
    );
  });

  it("must hold entries, and their keys must rise", () => {
    expect(() => decodeChunk(new Uint8Array(0))).toThrow("CHUNK_EMPTY");
    for (const keys of [
      ["b", "a"],
      ["a", "a"],
    ]) {
      const chunk = chunksOf(keys.map((key) => [key, utf8("v")] as const))[0] as Uint8Array;
      expect(() => decodeChunk(chunk)).toThrow("CHUNK_ORDER");
    }
  });

  it("are neither too small nor too large", () => {
    const chunks = chunksOf(someEntries(20_000, 400));
    expect(chunks.length).toBeGreaterThan(5);
    for (const chunk of chunks.slice(0, -1)) expect(chunk.length).toBeGreaterThanOrEqual(CHUNK_BYTES_MIN);
    for (const chunk of chunks) expect(chunk.length).toBeLessThan(CHUNK_BYTES_TARGET + 600);
    const builder = new ChunkBuilder();
    builder.add("a", new Uint8Array(CHUNK_BYTES_MIN - 20));
    builder.add("b", new Uint8Array(CHUNK_BYTES_TARGET - CHUNK_BYTES_MIN - 20));
    expect(builder.add(`c${"c".repeat(KEY_BYTES_MAX)}`, new Uint8Array(VALUE_BYTES_MAX))).toBe(true);
    const largest = builder.take() as Uint8Array;
    expect(largest.length).toBeLessThanOrEqual(CHUNK_BYTES_MAX);
    expect(decodeChunk(largest)).toHaveLength(3);
  });

  it("a change of one key changes only chunks near it", () => {
    const entries = someEntries(30_000, 300);
    const before = summaries(chunksOf(entries)).map(({ digest }) => digest);
    const middle = [...entries.keys()][15_000] as string;
    const changed = new Map(entries).set(middle, utf8("something else"));
    const grown = [...new Map(entries).set(`${middle}+`, new Uint8Array(999))].sort(([a], [b]) => (a < b ? -1 : 1));
    entries.delete(middle);
    for (const variant of [changed, grown, entries]) {
      const after = summaries(chunksOf(variant)).map(({ digest }) => digest);
      expect(after.filter((digest) => !before.includes(digest)).length).toBeLessThanOrEqual(3);
      expect(after).not.toEqual(before);
    }
  });
});

describe("manifest and root", () => {
  const chunks = chunksOf(someEntries(5_000, 300));
  const header = imageHeader(nodeCrypto, place, summaries(chunks));
  const root = rootOf(nodeCrypto, view, header);

  it("the manifest decodes to what was put in, and random bytes never throw anything but Malformed", () => {
    expect(decodeManifest(encodeManifest(summaries(chunks)))).toEqual(summaries(chunks));
    expect(decodeManifest(encodeManifest([]))).toEqual([]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), (input) => {
        const decodedChunks = malformedOr(() => decodeManifest(input));
        if (decodedChunks !== "malformed") expect(encodeManifest(decodedChunks)).toEqual(Buffer.from(input));
      }),
    );
    const bytesZero = encodeManifest([{ digest: root, bytes: 0 }]);
    const tooLarge = encodeManifest([{ digest: root, bytes: CHUNK_BYTES_MAX + 1 }]);
    for (const manifest of [bytesZero, tooLarge]) expect(() => decodeManifest(manifest)).toThrow("MANIFEST");
  });

  it("a change of any chunk, of their order, or of the manifest gives another root", () => {
    const tampered = chunks.map((chunk) => Uint8Array.from(chunk));
    const [first] = tampered;
    if (first) first[first.length - 1] = (first[first.length - 1] ?? 0) ^ 1;
    for (const others of [tampered, [...chunks].reverse(), chunks.slice(1), [...chunks, ...chunks.slice(0, 1)]]) {
      expect(rootOf(nodeCrypto, view, imageHeader(nodeCrypto, place, summaries(others)))).not.toBe(root);
    }
    const manifest = encodeManifest(summaries(chunks));
    expect(nodeCrypto.sha256(manifest)).toBe(header.manifest);
    manifest[3] = (manifest[3] ?? 0) ^ 1;
    expect(nodeCrypto.sha256(manifest)).not.toBe(header.manifest);
  });

  it("the root binds every field of the header, the view and the cluster", () => {
    const other = nodeCrypto.sha256(utf8("other"));
    const roots = [
      root,
      rootOf(nodeCrypto, viewOfSize(7), header),
      rootOf(nodeCrypto, { ...view, cluster: other }, header),
      rootOf(nodeCrypto, view, { ...header, instance: 10 }),
      rootOf(nodeCrypto, view, { ...header, digest: other }),
      rootOf(nodeCrypto, view, { ...header, timestampMs: 18 }),
      rootOf(nodeCrypto, view, { ...header, chunks: header.chunks + 1 }),
      rootOf(nodeCrypto, view, { ...header, bytes: header.bytes + 1 }),
      rootOf(nodeCrypto, view, { ...header, manifest: other }),
    ];
    expect(new Set(roots).size).toBe(roots.length);
    const statements = [
      rootStatement(CLUSTER, { view: 0, instance: 9, root }),
      rootStatement(CLUSTER, { view: 1, instance: 9, root }),
      rootStatement(CLUSTER, { view: 0, instance: 8, root }),
      rootStatement(CLUSTER, { view: 0, instance: 9, root: other }),
      rootStatement(other, { view: 0, instance: 9, root }),
    ];
    expect(new Set(statements.map(latin1)).size).toBe(statements.length);
  });
});
