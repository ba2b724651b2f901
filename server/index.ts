/** `quorate/server`: replicas of a service of one's own (docs/library.md). */
export { bytesOf, type Digest, hex, latin1, textOf, utf8 } from "../protocol/bytes.ts";
export type { ReplyStatus } from "../protocol/client-frames.ts";
export { type ErrorCode, Malformed, QuorateError } from "../protocol/errors.ts";
export { EVERY_KEY, type KeyRange, rangeOfKey } from "../protocol/key-ranges.ts";
export { loadServerConfig, type ServerConfig } from "./config.ts";
export type { Alarm, DriverLogger } from "./driver-contract.ts";
export { Replica, type ReplicaOptions, serve } from "./library.ts";
export type { Replier, ReplyToSend, RequestToVerify, RequestVerifier } from "./request-hooks.ts";
export type {
  Access,
  AccessRules,
  ExecutionContext,
  OrderedBatch,
  OrderedRequest,
  Service,
  ServiceFactory,
  ServiceState,
} from "./service/contract.ts";
export { KvService, kvService } from "./service/kv-service.ts";
export { type SnapshottedService, snapshotted } from "./service/snapshotted.ts";
export type { PeerStatus, ReplicaStatus } from "./status.ts";
