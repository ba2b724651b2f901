/**
 * The first leader proposes, to everybody alike, what only a careless replica would vote for; it has the votes of all liars. It
 * is replaced, and every request of a client is executed all the same (docs/protocol.md section 4.2).
 */
import { utf8 } from "../../../protocol/bytes.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";
import type { KnownBatch } from "../byzantine/guild.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { Stage } from "./stage.ts";

const CLOCK_DRIFT_MS = 5_000;

type Lie = "fabricated request" | "time that goes back" | "time far ahead" | "nothing wrong";
const LIES: readonly Lie[] = ["fabricated request", "time that goes back", "time far ahead", "nothing wrong"];

function fabricated(request: Request): Request {
  return decodeRequest(fastCrypto, encodeRequest({ ...request, commands: [utf8("never issued")] }));
}

export function lyingProposer(seed: number): void {
  const lie = LIES[seed % LIES.length] as Lie;
  const n = [4, 7][Math.floor(seed / LIES.length) % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => at);
  const forgeries = new Set<string>();
  const stage = new Stage({ seed, n, liars, unproven: (request) => forgeries.has(request.digest) });
  const { correct, cluster } = stage;
  const propose = (batch: KnownBatch): void => {
    const { instance, bytes, envelopes } = batch;
    const place = { view: cluster.view.id, regency: 0, instance };
    stage.lie(0, correct, { type: "PROPOSE", ...place, batch: bytes, envelopes: [...envelopes] });
    stage.support(0, batch, correct);
    stage.deliver({ types: ["WRITE"] });
    stage.support(0, batch, correct);
    stage.deliver({ types: ["WRITE", "ACCEPT", "STATUS"] });
  };
  const first = stage.request();
  const firstMs = stage.wallMs;
  propose(stage.batch(1, firstMs, [first]));
  stage.pass(100);
  const second = stage.request();
  const untrue = fabricated(second);
  forgeries.add(untrue.digest);
  const { wallMs } = stage;
  if (lie === "fabricated request") propose(stage.batch(2, wallMs, [untrue]));
  else if (lie === "time that goes back") propose(stage.batch(2, firstMs - 1, [second]));
  else if (lie === "time far ahead") propose(stage.batch(2, wallMs + 2 * CLOCK_DRIFT_MS, [second]));
  else propose(stage.batch(2, wallMs, [second]));
  stage.live();
}
