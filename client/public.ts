/** What both entry points export: the platform-independent part of the public API. */
export type { ClusterFile } from "../protocol/cluster.ts";
export type { Result } from "../protocol/commands.ts";
export type { Identity } from "../protocol/identity.ts";
export type { Member, View } from "../protocol/view.ts";
export { bytes, type Codec, json, type StandardSchema, utf8 } from "./codecs.ts";
export type { ConnectionFault } from "./connection.ts";
export { ConflictError, type ErrorCode, QuorateError, type RequestId, UnknownOutcomeError } from "./errors.ts";
export { Kv } from "./kv.ts";
export type * from "./kv-types.ts";
export type { ConnectionOptions, ServiceConnectionOptions } from "./open.ts";
export type { Channel, ChannelClosed, ChannelEvents, Clock, Scheduled, Transport } from "./ports.ts";
export type { ReplicaReply } from "./replica-reply.ts";
export type { ReplicaState } from "./replicas.ts";
export {
  type Invocation,
  type InvokeOptions,
  type OrderedInvocation,
  type OrderedOptions,
  type ServiceOutcome,
  ServiceProxy,
  type UnorderedOptions,
} from "./service-proxy.ts";
export { SessionNumbers } from "./session-numbers.ts";
export type { ViewStore } from "./view-follower.ts";
