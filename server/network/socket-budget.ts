/**
 * How many connections anybody may hold open at a replica (docs/protocol.md section 8). They cost descriptors whether or not they
 * ever say a word, and what has none left for a file of its stores can keep no promise: those are set apart from the limit of the
 * process.
 */
import { readFileSync } from "node:fs";

/** For the files of both stores, links, and what else a process opens; half of the limit where that is small. */
const RESERVED = 4_096;
const ADMIN_MAX = 256;
const ADMIN_SHARE = 8;
/** Where the limit cannot be read: what systems give at least that do not say. */
const DESCRIPTORS_ASSUMED = 8_192;

export interface SocketBudget {
  readonly clients: number;
  readonly admin: number;
}

export function socketBudget(descriptors = descriptorsMax()): SocketBudget {
  const outsiders = Math.max(Math.floor(descriptors / 2), descriptors - RESERVED);
  const admin = Math.min(ADMIN_MAX, Math.floor(outsiders / ADMIN_SHARE));
  return { clients: outsiders - admin, admin };
}

/** The limit of this process, which Node.js has raised to the hard one. */
function descriptorsMax(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === undefined ? DESCRIPTORS_ASSUMED : Number(limit);
  } catch {
    return DESCRIPTORS_ASSUMED;
  }
}
