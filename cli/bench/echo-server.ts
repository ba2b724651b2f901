/**
 * One process of the fan-out limit: a replica's gateway that answers every request at once with a reply of the right size,
 * without consensus, MAC or disk. Arguments: replica id, bytes of one result. It ends when its stdin ends.
 */
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { openUnauthenticatedGateway } from "../../server/network/gateway.ts";
import { ECHO_CLUSTER, echoReplies } from "./echo-replies.ts";

const [replica = 0, resultBytes = 0] = process.argv.slice(2).map(Number);
const replyTo = echoReplies(replica, resultBytes);
const gateway = await openUnauthenticatedGateway({
  crypto: nodeCrypto,
  cluster: ECHO_CLUSTER,
  view: 0,
  replica,
  listen: { host: "127.0.0.1", port: 0 },
  events: {
    admit: () => true,
    onRequest: (connection, envelope, request) => connection.send(replyTo(envelope, request)),
    onClosed: () => {},
    onFault: () => {},
  },
});
process.stdin.on("end", () => process.exit(0)).resume();
process.stdout.write(`port ${gateway.port}\n`);
