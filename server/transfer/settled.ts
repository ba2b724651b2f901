/**
 * The instance from which on a fetched state is certainly right (docs/decisions/021), kept as the note "settled" of the state
 * store: a u53. Before that instance is executed the state is neither read, nor vouched for, nor are results told.
 */
import { decoded, isRejection } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import type { StateStore } from "../../storage/contract.ts";

const NOTE = "settled";

export async function noteSettled(state: Pick<StateStore, "writeNote">, instance: number): Promise<void> {
  await state.writeNote(NOTE, new Writer(8).u53(instance).finish());
}

/** 0: the state is right as it stands. */
export function settledFrom(state: Pick<StateStore, "note">): number {
  const note = state.note(NOTE);
  if (!note) return 0;
  const instance = decoded(() => new Reader(note).u53());
  // The note carries a checksum: what it does not hold was never written.
  return isRejection(instance) ? Number.MAX_SAFE_INTEGER : instance;
}
