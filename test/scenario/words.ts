/** Messages and effects as the short lines of a transcript. */

import type { Certificate, Message } from "../../protocol/messages.ts";
import { decodeRequest } from "../../protocol/request.ts";
import type { CoreRecord, Effect } from "../../server/consensus/contract.ts";
import { fastCrypto } from "../simulation/fast-crypto.ts";
import type { Names } from "./names.ts";

function votersOf(certificate: Certificate): string {
  return certificate.votes
    .map((vote) => vote.replica)
    .sort((a, b) => a - b)
    .join(",");
}

export function recordWords(names: Names, record: Pick<Certificate, "regency" | "instance" | "digest"> | null): string {
  if (!record) return "none";
  return `r${record.regency} i${record.instance} ${names.digest(record.digest)}`;
}

export function messageWords(names: Names, message: Message): string {
  const { type, regency } = message;
  switch (message.type) {
    case "PROPOSE":
      return `${type} r${regency} i${message.instance} ${names.batch(message.batch)}`;
    case "WRITE":
    case "ACCEPT":
    case "SIGNED_ACCEPT":
      return `${type} r${regency} i${message.instance} ${names.digest(message.digest)}`;
    case "STATUS": {
      const abstaining = message.abstainingUntil > 0 ? `, abstains until i${message.abstainingUntil}` : "";
      return `${type} r${regency} decided i${message.decided} ${names.digest(message.digest)}${abstaining}`;
    }
    case "FORWARD":
      return `${type} ${names.request(decodeRequest(fastCrypto, message.request).digest)}`;
    case "FETCH_BATCH":
      return `${type} i${message.instance} ${names.digest(message.digest)}`;
    case "BATCH":
      return `${type} i${message.instance} ${names.digest(message.digest)}`;
    case "FETCH_HISTORY":
      return `${type} i${message.from} to i${message.to}`;
    case "HISTORY":
      return `${type} from i${message.from}: ${message.batches.map((batch) => names.batch(batch)).join(" ")}`;
    case "STOP": {
      const named = message.named.map((client) => names.client(client)).join(" ");
      return `${type} r${regency}${named ? ` naming ${named}` : ""}`;
    }
    case "STOPDATA": {
      const voters =
        message.record && message.record.votes.length > 0 ? ` certified by ${votersOf(message.record)}` : "";
      return `${type} r${regency} accepted ${recordWords(names, message.record)}${voters}`;
    }
    case "SYNC": {
      const reports = message.stopData.map((data) => `${data.replica}: ${recordWords(names, data.record)}`);
      return `${type} r${regency} ${names.batch(message.batch)} because (${reports.join(" | ")})`;
    }
    case "OFFER": {
      const remembered = message.yourWrite ? `, remembers WRITE ${recordWords(names, message.yourWrite)}` : "";
      return `${type} wants r${message.wanted}, certified ${recordWords(names, message.newest)}${remembered}`;
    }
    case "FETCH_LINKS":
    case "LINKS":
    case "FETCH_OFFER":
      return type;
    case "FETCH_MANIFEST":
    case "MANIFEST":
    case "FETCH_CHUNK":
    case "CHUNK":
    case "ROOT":
      return `${type} i${message.instance}`;
  }
}

function recordsWords(names: Names, record: CoreRecord): string {
  switch (record.type) {
    case "regency":
      return `regency ${record.regency}`;
    case "wanted":
      return `that it asks for regency ${record.regency}`;
    case "started":
      return "that it started";
    case "forgotten":
      return `that it forgot its votes up to i${record.until ?? "?"} and below r${record.regency}`;
    case "remembered":
      return "that nothing forgotten matters any more";
    case "instance": {
      const { instance, regency, digest, certificate } = record;
      const what = names.digest(digest);
      return certificate ? `accept r${regency} i${instance} ${what}` : `decided i${instance} ${what}`;
    }
  }
}

export function journalWords(names: Names, records: readonly CoreRecord[]): string {
  return records.map((record) => recordsWords(names, record)).join(" and ");
}

/** What a replica does, or null for what a reader need not see. */
export function effectWords(names: Names, effect: Effect): string | null {
  switch (effect.type) {
    case "send":
    case "broadcast": {
      if (effect.message.type === "STATUS") return null;
      const to = effect.type === "send" ? effect.to : "all";
      return `-> ${to} ${messageWords(names, effect.message)}`;
    }
    case "decide":
      return `decides i${effect.decision.instance} ${names.digest(effect.decision.digest)}`;
    case "serveHistory":
      return `-> ${effect.to} its history from i${effect.from}`;
    case "serveBatch":
      return `-> ${effect.to} from its journal i${effect.instance} ${names.digest(effect.digest)}`;
    case "suspect":
      return `suspects ${effect.leader}: ${effect.reason}`;
    case "regency":
      return `installs r${effect.regency}, led by ${effect.leader}`;
    case "mustSign":
      return `demands signatures of ${names.client(effect.client)}`;
    case "misbehaved":
      return `rejects what ${effect.replica} sent: ${effect.code}`;
    case "link":
      return `has the link to the next view, after i${effect.link.instance}`;
    case "transfer":
      return `needs a checkpoint: ${effect.reason}`;
    case "forgotten":
      return `has forgotten its votes: ${effect.reason}`;
    case "remembered":
      return "has nothing more to remember";
    case "stopping": {
      const kept = effect.messages?.map((message) => messageWords(names, message)).join(", ");
      return kept === undefined ? "stops, not knowing what it sent" : `stops, remembering ${kept || "nothing"}`;
    }
    case "journal":
    case "verify":
    case "durable":
    case "wake":
    case "offer":
    case "root":
    case "serveImage":
      return null;
  }
}
