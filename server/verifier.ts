/** Signature checks off the event loop: libuv's thread pool through node:crypto, the one verifier consensus depends on. */
import { verify } from "node:crypto";
import { verifyKeyOf } from "../protocol/crypto/node.ts";
import type { SignatureCheck } from "./consensus/contract.ts";

/** Calls `then` once, later, with one verdict per check; malformed keys and signatures are simply not valid. */
export type Verifier = (checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void) => void;

export const threadPoolVerifier: Verifier = (checks, then) => {
  const valid = new Array<boolean>(checks.length).fill(false);
  let open = checks.length;
  const done = (): void => {
    if (--open === 0) then(valid);
  };
  if (open === 0) {
    open = 1;
    setImmediate(done);
    return;
  }
  checks.forEach((check, index) => {
    try {
      verify(null, check.statement, verifyKeyOf(check.publicKey), check.signature, (error, ok) => {
        valid[index] = !error && ok;
        done();
      });
    } catch {
      setImmediate(done);
    }
  });
};
