/** Which ports of a cluster are taken on this machine, found out before anything is started. */
import { createServer } from "node:net";
import type { Member } from "../../protocol/view.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export function addressesOf({
  members,
}: {
  readonly members: readonly Omit<Member, "signKey" | "boxKey">[];
}): Address[] {
  return members.flatMap(({ host, clientPort, peerPort, adminPort }) =>
    [clientPort, peerPort, adminPort].map((port) => ({ host, port })),
  );
}

/** The first address that cannot be bound, with the reason's errno code, or null. */
export async function firstTaken(addresses: readonly Address[]): Promise<(Address & { code: string }) | null> {
  for (const address of addresses) {
    const code = await bindCode(address);
    if (code !== null) return { ...address, code };
  }
  return null;
}

function bindCode({ host, port }: Address): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "UNKNOWN"));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)));
  });
}
