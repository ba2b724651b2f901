/** Messages in a few words, for traces. */
import { type Digest, hex } from "../../protocol/bytes.ts";
import { isRejection } from "../../protocol/errors.ts";
import { decodeMessage, type Message } from "../../protocol/messages.ts";

/** The first digits of a digest. */
export function brief(digest: Digest): string {
  return hex(digest).slice(0, 6);
}

export function short(payload: Uint8Array): string {
  const message = decodeMessage(payload);
  return isRejection(message) ? `garbage (${payload.length} bytes)` : inWords(message);
}

export function inWords(message: Message): string {
  const { type, regency } = message;
  const place = "instance" in message ? `${regency}/${message.instance}` : `${regency}`;
  const digest = "digest" in message ? ` ${brief(message.digest)}` : "";
  switch (message.type) {
    case "PROPOSE":
      return `PROPOSE ${place} (${message.envelopes.length} requests)`;
    case "STATUS":
      return `STATUS ${place}${digest} decided ${message.decided} abstains ${message.abstainingUntil}`;
    case "FETCH_HISTORY":
      return `FETCH_HISTORY from ${message.from}`;
    case "HISTORY":
      return `HISTORY from ${message.from}, ${message.batches.length} batches`;
    case "STOPDATA":
      return `STOPDATA ${place} ${recordWords(message.record)}`;
    case "SYNC":
      return `SYNC ${place} of ${message.stopData.map((data) => `${data.replica}: ${recordWords(data.record)}`).join(", ")}`;
    case "STOP":
      return `STOP ${place}${message.named.length > 0 ? ` names ${message.named.length}` : ""}`;
    default:
      return `${type} ${place}${digest}`;
  }
}

function recordWords(record: { regency: number; instance: number; digest: Digest } | null): string {
  return record ? `${record.regency}/${record.instance} ${brief(record.digest)}` : "none";
}
