import { gatewayContract } from "./gateway-contract.ts";

gatewayContract("uws");
gatewayContract("ws");
