/**
 * What the bytes of a request and its envelope prove, wherever it is computed (docs/protocol.md section 2): shape, digest, and
 * the MAC for this very replica, which is also the filter in front of a signature. The same bytes and keys give the same answer.
 */
import { copyOf, type Digest } from "../../protocol/bytes.ts";
import { type Crypto, equalMacs } from "../../protocol/crypto/contract.ts";
import { decoded, type Rejection } from "../../protocol/errors.ts";
import {
  AUTHENTICATOR_BYTES,
  decodeEnvelope,
  decodeRequest,
  type Envelope,
  macAt,
  type Request,
  requestStatement,
} from "../../protocol/request.ts";
import type { ClientKeys } from "../client-keyring.ts";
import type { Authentication } from "../consensus/contract.ts";

/** Who examines. */
export interface Examiner {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  readonly position: number;
  keysOf(client: Digest, given: Uint8Array | null): ClientKeys | null;
}

/** A signature comes back as a check that is still to be made. */
export interface Examined {
  readonly request: Request;
  readonly envelope: Envelope;
  readonly authentication: Authentication;
}

export function examine(by: Examiner, envelopeBytes: Uint8Array, requestBytes: Uint8Array): Examined | Rejection {
  return decoded(() => {
    const request = decodeRequest(by.crypto, requestBytes);
    const envelope = decodeEnvelope(envelopeBytes);
    return { request, envelope, authentication: authenticationOf(by, request, envelope) };
  });
}

function authenticationOf(
  by: Examiner,
  request: Request,
  { view, keys: given, authenticator }: Envelope,
): Authentication {
  const keys = by.keysOf(request.client, given);
  if (!keys) return "unproven";
  const statement = requestStatement(by.cluster, view, request.digest);
  const mac = authenticator.type === "signature" ? authenticator.mac : macAt(authenticator.macs, by.position);
  const expected = by.crypto.mac(keys.incoming, statement).slice(0, AUTHENTICATOR_BYTES);
  if (!equalMacs(mac, expected)) return "unproven";
  if (authenticator.type === "vector") return "authentic";
  const { signature } = authenticator;
  return { publicKey: keys.publicKeys.signKey, statement: copyOf(statement), signature };
}
