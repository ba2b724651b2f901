/** What an echo process of the fan-out limit answers: reply frames of the size and form a replica would send, with no MAC made. */
import { copyOf, type Digest } from "../../protocol/bytes.ts";
import { encodeReply } from "../../protocol/client-frames.ts";
import { encodeResults } from "../../protocol/commands.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { Reader } from "../../protocol/layout.ts";
import { LARGE_RESULT_BYTES } from "../../protocol/limits.ts";

/** Cluster id of the echo processes: they belong to no cluster. */
export const ECHO_CLUSTER = "\0".repeat(32) as Digest;

/** Where a reply frame holds session and sequence, 16 bytes: after type, replica and view. */
const SESSION_AT = 1 + 4 + 4;
/** Where a request holds the same 16 bytes: after magic, cluster and client. */
const REQUEST_SESSION_AT = 4 + 32 + 32;
/** Where a request holds its number of commands: after session, sequence, ackedBelow, kind and deadline. */
const REQUEST_COUNT_AT = REQUEST_SESSION_AT + 8 + 8 + 8 + 1 + 8;
const REPLIER_AT = 4;

/** Makes the replies of one replica: encoded once per number of commands, then only renumbered. */
export function echoReplies(
  replica: number,
  resultBytes: number,
): (envelope: Uint8Array, request: Uint8Array) => Uint8Array {
  const templates = new Map<string, Uint8Array>();
  return (envelope, request) => {
    const count = new Reader(request.subarray(REQUEST_COUNT_AT, REQUEST_COUNT_AT + 4)).u32();
    const replier = new Reader(envelope.subarray(REPLIER_AT, REPLIER_AT + 4)).u32();
    const full = count * resultBytes <= LARGE_RESULT_BYTES || replier === replica;
    const name = `${count} ${full}`;
    let template = templates.get(name);
    if (!template) {
      template = replyTemplate({ replica, count, resultBytes, full });
      templates.set(name, template);
    }
    const reply = copyOf(template);
    reply.set(request.subarray(REQUEST_SESSION_AT, REQUEST_SESSION_AT + 16), SESSION_AT);
    return reply;
  };
}

function replyTemplate(options: { replica: number; count: number; resultBytes: number; full: boolean }): Uint8Array {
  const { replica, count, resultBytes, full } = options;
  // Four bytes of each result are its length in the bundle.
  const results = encodeResults(Array.from({ length: count }, () => new Uint8Array(Math.max(0, resultBytes - 4))));
  const nothing = nodeCrypto.sha256(new Uint8Array(0));
  return encodeReply(
    nodeCrypto,
    nodeCrypto.macKey(new Uint8Array(32)),
    { cluster: ECHO_CLUSTER, client: nothing },
    {
      replica,
      view: 0,
      session: 0,
      sequence: 0,
      kind: "ordered",
      requestDigest: nothing,
      status: "OK",
      position: 0,
      resultDigest: nothing,
      body: full ? "full" : "digest",
      result: full ? results : new Uint8Array(0),
    },
  );
}
