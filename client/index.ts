/** `quorate/client` on Node. */
export { type ConnectOptions, connect, newIdentity } from "./connect.ts";
export * from "./public.ts";
