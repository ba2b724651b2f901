/** `quorate/client` on Node. */
export type { Administration, ClientList, ClientRights, GrantOptions } from "./administration.ts";
export {
  type AdministrationConnectOptions,
  type ConnectOptions,
  type ConnectServiceOptions,
  connect,
  connectAdministration,
  connectService,
  newIdentity,
} from "./connect.ts";

export * from "./public.ts";
