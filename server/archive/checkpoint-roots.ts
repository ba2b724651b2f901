/**
 * The roots this replica computed of its own states, signed, newest first: the last few of them, kept as the note "roots" of
 * the state store, so that they are offered after a restart, too (docs/protocol.md section 6).
 *
 * Note: u32 count, then per root u8 kind, u53 instance, root (32), signature (64).
 */
import { copyOf, type Digest } from "../../protocol/bytes.ts";
import { Malformed } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { ROOTS_KEPT } from "../../protocol/limits.ts";
import type { SignedRoot } from "../../protocol/messages.ts";
import { SIGNATURE_BYTES } from "../../protocol/request.ts";

/**
 * Why a root was computed. A checkpoint somebody else asked for does not shorten the log by itself: a liar who keeps asking
 * could else leave the others without one.
 */
export type RootKind = "common" | "checkpoint" | "requested";
const KINDS: readonly RootKind[] = ["common", "checkpoint", "requested"];

export interface OwnRoot extends SignedRoot {
  readonly kind: RootKind;
}

export function encodeRoots(roots: readonly OwnRoot[]): Uint8Array {
  const writer = new Writer(4 + roots.length * 128).u32(roots.length);
  for (const { kind, instance, root, signature } of roots) {
    writer.u8(KINDS.indexOf(kind)).u53(instance).rawLatin1(root).raw(signature);
  }
  return writer.finish();
}

/** @throws Malformed */
export function decodeRoots(bytes: Uint8Array): OwnRoot[] {
  const reader = new Reader(bytes);
  const count = reader.u32();
  if (count > ROOTS_KEPT) throw new Malformed("ROOTS_COUNT");
  const roots: OwnRoot[] = [];
  for (let index = 0; index < count; index++) {
    const kind = KINDS[reader.u8()];
    if (!kind) throw new Malformed("ROOTS_KIND");
    const instance = reader.u53();
    const root: Digest = reader.rawLatin1(32);
    roots.push({ kind, instance, root, signature: copyOf(reader.raw(SIGNATURE_BYTES)) });
  }
  reader.end();
  return roots;
}

/** With one more, newest first; at most `ROOTS_KEPT`, among them always the two checkpoints that bound the log. */
export function withRoot(roots: readonly OwnRoot[], added: OwnRoot): OwnRoot[] {
  const kept = roots.filter((root) => root.instance !== added.instance);
  const same = roots.find((root) => root.instance === added.instance);
  kept.push(same?.kind === "checkpoint" ? same : added);
  kept.sort((a, b) => b.instance - a.instance);
  const bounding = kept.filter((root) => root.kind === "checkpoint").slice(0, 2);
  while (kept.length > ROOTS_KEPT) {
    kept.splice(
      kept.findLastIndex((root) => !bounding.includes(root)),
      1,
    );
  }
  return kept;
}

/**
 * The oldest instance the log must hold for this replica's own sake: the one after its second-newest completed checkpoint;
 * null while there are not two. `counted` says which roots are checkpoints.
 */
export function logNeededFrom(roots: readonly OwnRoot[], counted: (kind: RootKind) => boolean): number | null {
  const second = roots.filter((root) => counted(root.kind))[1];
  return second ? second.instance + 1 : null;
}
