/**
 * Lets a replica in that is to become a member, and waits until it is ready (docs/protocol.md section 7): an invitation, signed by
 * administrators, to every member, again and again, since members come back and forget; and the READY that the replica answers.
 * Guarantees: a READY counts only when the change with it would be taken, and nobody waits on when it cannot be taken any more; who
 * answers at the address is believed in nothing else.
 */
import { setTimeout as pause } from "node:timers/promises";
import { QuorateError } from "../../protocol/errors.ts";
import { parseReady, type ReadyAnswer } from "../../protocol/member-file.ts";
import type { Ready } from "../../protocol/reconfiguration.ts";
import type { Member, View } from "../../protocol/view.ts";
import type { Network } from "../io.ts";
import { adminUrl, parseStatus } from "../replica-status.ts";
import { recoveryText } from "../status-text.ts";

const POLL_MS = 500;
const LOOK_EVERY_MS = 5_000;
const REQUEST_MS_MAX = 2_000;
const ANSWER_BYTES_MAX = 64 * 1024;
const FETCHING = "it fetches the state";

/** Who is waited for, in the view in force. */
export interface Joining {
  /** Its members are invited to serve the replica. */
  readonly view: View;
  /** As it will be. */
  readonly member: Member;
  /** Null when the replica is a member already. */
  readonly invitation: Uint8Array | null;
}

export interface Awaited {
  readonly network: Network;
  /** Asked again and again: other changes may come first. @throws QuorateError REFUSED when this one cannot be made any more */
  readonly look: () => Promise<Joining>;
  /** The change with this READY would be taken. */
  accepts(ready: Ready): boolean;
  readonly waitMs: number;
  /** `detail`: how far it is with the state, as it says itself. */
  onProgress(text: string, detail: string | null): void;
}

/** @throws QuorateError TIMEOUT when it is not ready in time, with what it said last; REFUSED */
export async function readiness(options: Awaited): Promise<Ready> {
  const { network, waitMs } = options;
  const end = performance.now() + waitMs;
  let joining = await invited(options);
  let lookedAt = performance.now();
  for (;;) {
    const { view, member } = joining;
    const told = await askReady(network, member);
    if (typeof told !== "string") {
      const mine = told.replica === member.id && told.view === view.digest;
      if (mine && options.accepts(told.ready)) return told.ready;
    }
    const said = typeof told === "string" ? told : "its READY is for another view, or not signed by its keys";
    if (performance.now() >= end) {
      const message = `replica ${member.id} is not ready: ${said}; start it, look at its log, and try again`;
      throw new QuorateError("TIMEOUT", message, { replica: member.id });
    }
    const detail = told === FETCHING ? await howFar(network, member) : null;
    options.onProgress(`waiting for replica ${member.id}: ${said}`, detail);
    await pause(Math.min(POLL_MS, Math.max(1, end - performance.now())));
    if (performance.now() - lookedAt < LOOK_EVERY_MS) continue;
    joining = await invited(options);
    lookedAt = performance.now();
  }
}

/** Looks, and invites; whoever is down is told the next time. */
async function invited({ network: { fetch }, look }: Awaited): Promise<Joining> {
  const joining = await look();
  const { view, invitation: body } = joining;
  if (body === null) return joining;
  const post = async (member: Member): Promise<void> => {
    const signal = AbortSignal.timeout(REQUEST_MS_MAX);
    const headers = { "content-type": "application/octet-stream" };
    const response = await fetch(adminUrl(member, "/invitation"), { method: "POST", body, headers, signal });
    await response.body?.cancel();
  };
  await Promise.allSettled(view.members.map(post));
  return joining;
}

/** What it answers, or why there is no answer. */
async function askReady(network: Network, member: Member): Promise<ReadyAnswer | string> {
  const got = await textAt(network, member, "/ready");
  if (!got) return `nobody answers at ${member.host}:${member.adminPort}`;
  if (got.status === 404) return FETCHING;
  return parseReady(got.text) ?? `it answers something else (HTTP ${got.status})`;
}

/** How far it is with the state; null when it says nothing of that. */
async function howFar(network: Network, member: Member): Promise<string | null> {
  const got = await textAt(network, member, "/status");
  const recovery = got && parseStatus(got.text)?.recovery;
  return recovery ? recoveryText(recovery) : null;
}

/** What is answered there, empty when it is too long; null: nobody answers. */
async function textAt(
  { fetch }: Network,
  member: Member,
  path: string,
): Promise<{ status: number; text: string } | null> {
  try {
    const signal = AbortSignal.timeout(REQUEST_MS_MAX);
    const response = await fetch(adminUrl(member, path), { signal, redirect: "error" });
    const text = await response.text();
    return { status: response.status, text: text.length > ANSWER_BYTES_MAX ? "" : text };
  } catch {
    return null;
  }
}
