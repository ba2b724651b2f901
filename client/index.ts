/** `quorate/client` on Node. */
export { type ConnectOptions, type ConnectServiceOptions, connect, connectService, newIdentity } from "./connect.ts";
export * from "./public.ts";
