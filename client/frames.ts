/**
 * The REQUEST frames of one request (docs/protocol.md section 2): in vector mode one frame serves every replica; a signed request
 * carries a MAC for its receiver in front of the signature, so each replica gets its own.
 */
import { encodeRequestFrame } from "../protocol/client-frames.ts";
import { type Authenticator, EVERYBODY, encodeEnvelope, macAt } from "../protocol/request.ts";
import type { View } from "../protocol/view.ts";
import type { InFlight } from "./call.ts";

export interface FrameOptions {
  readonly view: View;
  /** The client's keys while replicas may not know them; always on a resend. */
  readonly keys: Uint8Array | null;
  /** Asks every replica for the full result. */
  readonly everybody: boolean;
}

/** The frame that serves every replica, or null when the request is signed. */
export function sharedFrame(entry: InFlight, options: FrameOptions): Uint8Array | null {
  const { macs, signature } = entry.proof;
  return signature ? null : frameWith(entry, options, { type: "vector", macs });
}

/** The frame of a signed request for one member. */
export function signedFrame(entry: InFlight, options: FrameOptions, position: number): Uint8Array {
  const { macs, signature } = entry.proof;
  return frameWith(entry, options, {
    type: "signature",
    signature: signature as Uint8Array,
    mac: macAt(macs, position),
  });
}

function frameWith(entry: InFlight, options: FrameOptions, authenticator: Authenticator): Uint8Array {
  const { view, keys, everybody } = options;
  const replier = everybody ? EVERYBODY : (view.members[entry.replier]?.id ?? EVERYBODY);
  return encodeRequestFrame(encodeEnvelope({ view: view.id, replier, keys, authenticator }), entry.bytes);
}
