/**
 * Every bound of the system in one place (docs/protocol.md section 8), with the relations between them asserted below.
 * Units are in the names.
 */
import { assert } from "./errors.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** Version of the client and peer wire formats; a change of either raises it. */
export const WIRE_VERSION = 4;

export const REPLICAS_MAX = 64;
export const KEY_BYTES_MAX = 4 * KIB;
export const VALUE_BYTES_MAX = 1 * MIB;
export const REQUEST_BYTES_MAX = 2 * MIB;
export const REQUEST_COMMANDS_MAX = 10_000;
/** Envelope: view, replier, keys, and 16 bytes per member or one signature. */
export const ENVELOPE_BYTES_MAX = 2 * KIB;
export const BATCH_BYTES_MAX = 4 * MIB;
export const BATCH_REQUESTS_MAX = 4_000;
/** Administrators of a view, and so signatures of a statement. */
export const ADMINISTRATORS_MAX = 16;
/** Statements of administrators in one batch: their signatures are verified where they are executed. */
export const BATCH_STATEMENTS_MAX = 16;
export const STATEMENT_BODY_BYTES_MAX = 256 * KIB;
/** Prefixes that one grant names for reading, and for writing. */
export const GRANT_PREFIXES_MAX = 256;
export const GRANTS_PAGE_MAX = 512;
export const GRANTS_PAGE_BYTES = 128 * KIB;
/** How far the number of a statement, which is a time, may lie ahead of batch time. */
export const STATEMENT_AHEAD_MS_MAX = 60 * 60 * 1000;
export const FRAME_BYTES_MAX = 8 * MIB;
/** What a client may send in one WebSocket message. */
export const CLIENT_FRAME_BYTES_MAX = REQUEST_BYTES_MAX + ENVELOPE_BYTES_MAX + 64;

/** Sequences that may be executed above a session's base before WINDOW_FULL (section 3). */
export const SESSION_WINDOW = 1_024;
/** Live sessions of one client before the oldest is evicted (section 3). */
export const SESSIONS_MAX = 1_024;
export const SESSION_AHEAD_MS_MAX = 60 * 60 * 1000;
export const CLIENT_IDLE_MS_MAX = 30 * 24 * 60 * 60 * 1000;
/** A cached reply above this keeps digest and status only. */
export const CACHED_REPLY_BYTES_MAX = 64 * KIB;
export const CACHED_REPLIES_BYTES_MAX = 64 * MIB;
/** Results above this travel in full from one replica and as digests from the others. */
export const LARGE_RESULT_BYTES = 1 * KIB;

export const RANGE_BYTES_MAX = 256 * KIB;
export const RANGE_ENTRIES_MAX = 10_000;

/** Pending requests of one client, of all its sessions together, before BUSY; as many more that others forward. */
export const PENDING_PER_CLIENT_MAX = 4_096;
export const PENDING_BYTES_PER_CLIENT_MAX = 64 * MIB;
/** Pending requests and bytes of one replica before BUSY. */
export const PENDING_MAX = 65_536;
export const PENDING_BYTES_MAX = 256 * MIB;

/** Statements of administrators that may wait, beyond every other bound. */
export const PENDING_STATEMENTS_MAX = 64;

/** Requests that were received and are not judged yet, of everybody and of one client, before BUSY. */
export const INTAKE_REQUESTS_MAX = 16_384;
export const INTAKE_REQUESTS_PER_CLIENT_MAX = 4_096;
export const INTAKE_BYTES_MAX = 64 * MIB;
export const INTAKE_BYTES_PER_CLIENT_MAX = 16 * MIB;
/**
 * What serving a request costs, in units of about a byte of the header's work: one request, each of its commands, and so many
 * of its bytes as one unit. Shares of clients are measured in it, so that neither many small requests nor few large ones win.
 */
export const REQUEST_COST = 1_024;
export const COMMAND_COST = 256;
export const BYTES_PER_COST = 4;
/** What a client may be served in one round, beside the others. */
export const ROUND_COST = 2 * REQUEST_COST;
/** And in a batch, at least; or as much as half of the others want. */
export const BATCH_COST_EACH_MIN = 8 * REQUEST_COST;
/** What is served of large results in a millisecond, in cost: 40 MB a second. Whoever had them waits until all had as much, */
export const RESULTS_PACE = 10_000;
/** at most so long; what it had in one batch up to this is free. */
export const DEBT_MS_MAX = 2_000;
export const RESULTS_FREE_COST = (64 * KIB) / BYTES_PER_COST;
/** The batches of late: so many, none older than this. Who is in this part of them counts as one of the others, or for less. */
export const LATE_BATCHES = 32;
export const LATE_MS = 1_000;
export const PRESENT_SHARE = 1 / 4;

/** What is pending may take so long to serve at the pace of late, before clients beyond their share get BUSY. */
export const QUEUE_US_MIN = 75_000;
export const QUEUE_US_MAX = 1_000_000;
/** And this much in any case; until a pace is known, the larger one. */
export const QUEUE_COST_MIN = 512 * KIB;
export const QUEUE_COST_START = 16 * MIB;
/** A client with nothing pending is let in up to so many times that. */
export const QUEUE_CROWDED_MAX = 4;

/** Kept free for requests that other replicas forward, beyond `PENDING_BYTES_MAX`: dropping those would starve clients. */
export const FORWARDED_BYTES_RESERVE = 32 * MIB;
export const FORWARDED_BYTES_PER_CLIENT_MAX = 8 * MIB;
/** Kept free for what must get through when everything is full: RESOLVE. Per client, and of all. */
export const RESERVED_PER_CLIENT_MAX = 1_088;
export const RESERVED_BYTES_MAX = 32 * MIB;

/** BUSY answers in 10 ms, to one client and to all; the rest is dropped without a look: they resend anyway. */
export const BUSY_PER_CLIENT_MAX = 4;
export const BUSY_MAX = 20;
export const BUSY_WINDOW_US = 10_000;
/** Reads, and signatures under verification, that wait for their client's turn. */
export const WAITING_PER_CLIENT_MAX = 256;
export const WAITING_MAX = 8_192;
export const WAITING_BYTES_MAX = 64 * MIB;
/** Reads answered in one turn of the event loop: votes are looked at in between. */
export const READS_TURN_COST = 256 * KIB;
/** Signatures of client requests in the thread pool at once: votes are verified there too. */
export const VERIFYING_MAX = 64;

/** Below this much free disk a replica refuses commands that add to the state (STORAGE_FULL), unless configured otherwise. */
export const DISK_RESERVE_BYTES = 256 * MIB;

/** Messages kept for instances or regencies not reached yet, per sender. */
export const FUTURE_MESSAGES_PER_SENDER_MAX = 512;
export const FUTURE_BYTES_PER_SENDER_MAX = 32 * MIB;
/** Bytes queued to one peer before the link is dropped and resynchronised. */
export const LINK_QUEUE_BYTES_MAX = 64 * MIB;
/** Bytes queued to one client connection before it is closed as a slow reader. */
export const CONNECTION_QUEUE_BYTES_MAX = 16 * MIB;
/** Bytes queued to all client connections before the slowest readers are closed. */
export const CONNECTIONS_QUEUE_BYTES_MAX = 256 * MIB;
export const CONNECTIONS_MAX = 10_000;
/** Connections of one client: one per session. */
export const CONNECTIONS_PER_CLIENT_MAX = SESSIONS_MAX;
/** Connections that have not proved who they are. */
export const STRANGERS_MAX = 512;
export const HANDSHAKE_MS_MAX = 5_000;
export const IDLE_CONNECTION_MS_MAX = 120_000;

/** Clients one STOP may name as not provable. */
export const STOP_CLIENTS_MAX = 64;
/** Clients of whom a replica remembers that they must sign; the oldest is forgotten. */
export const MUST_SIGN_MAX = 4_096;

/** Log ranges sent in one HISTORY answer. */
export const HISTORY_BYTES_MAX = 4 * MIB;
export const HISTORY_BATCHES_MAX = 1_024;

/** A chunk of a state ends after a suitable key once it has this many bytes, or after any key at the target. */
export const CHUNK_BYTES_MIN = 256 * KIB;
export const CHUNK_BYTES_TARGET = 1 * MIB;
/** The target and one entry more. */
export const CHUNK_BYTES_MAX = 3 * MIB;
/** A chunk ends with this many entries at the latest: small ones must not cost more to read than large ones. */
export const CHUNK_ENTRIES_MAX = 16_384;
export const CHUNKS_MAX = 100_000;
export const MANIFEST_BYTES_MAX = 36 * CHUNKS_MAX;
/** Checkpoints, and roots, that one OFFER names. */
export const OFFERED_CHECKPOINTS_MAX = 4;
export const OFFERED_ROOTS_MAX = 32;
/** Roots that a replica remembers of itself and of every other member. */
export const ROOTS_KEPT = 16;
/** Instances between two checkpoints of one replica (P), unless configured otherwise. */
export const CHECKPOINT_PERIOD = 120_000;
/** Every so many periods all replicas compute a root at the same instance, to be compared. */
export const COMMON_ROOT_PERIODS = 16;
/** A log above this asks for a checkpoint before its time. */
export const LOG_BYTES_MAX = 1024 * MIB;

/** Ids of replicas, and bytes of their host names. */
export const REPLICA_ID_MAX = 65_535;
export const HOST_BYTES_MAX = 255;
/** How many instances a READY may be old when it is ordered: the default distance of two checkpoints. */
export const READY_AGE_INSTANCES_MAX = 120_000;
/** A batch with a RECONFIGURE; a larger one makes no view, so that every link is small. */
export const LINK_BATCH_BYTES_MAX = 8 * KIB;
export const LINK_BYTES_MAX = 16 * KIB;
/** Links in one answer; it asks again for the rest. */
export const LINKS_PER_ANSWER_MAX = 16;

export const STATUS_INSTANCES_MAX = 64;
export const STATUS_INTERVAL_MS = 250;

assert(VALUE_BYTES_MAX + KEY_BYTES_MAX < REQUEST_BYTES_MAX, "a put of the largest value fits a request");
assert(CLIENT_FRAME_BYTES_MAX < INTAKE_BYTES_PER_CLIENT_MAX, "the largest request of a client can be judged");
assert(REQUEST_BYTES_MAX + 64 < BATCH_BYTES_MAX, "the largest request fits a batch");
assert(BATCH_BYTES_MAX + BATCH_REQUESTS_MAX * 640 < FRAME_BYTES_MAX, "a batch with typical envelopes fits a frame");
assert(VALUE_BYTES_MAX + KEY_BYTES_MAX + CHUNK_BYTES_TARGET + 64 < CHUNK_BYTES_MAX, "the largest entry fits a chunk");
assert(SESSION_WINDOW + 64 <= RESERVED_PER_CLIENT_MAX, "a client may ask about every request of a session at once");
assert(2 * REQUEST_BYTES_MAX <= FORWARDED_BYTES_PER_CLIENT_MAX, "the largest request can be forwarded");
assert(CONNECTIONS_PER_CLIENT_MAX + STRANGERS_MAX < CONNECTIONS_MAX, "one client and strangers leave room for others");
assert(
  CONNECTION_QUEUE_BYTES_MAX < CONNECTIONS_QUEUE_BYTES_MAX,
  "one slow reader does not cost another its connection",
);
assert(CHUNK_BYTES_MAX + MANIFEST_BYTES_MAX < FRAME_BYTES_MAX, "a chunk, or a manifest, fits a frame");
assert(LINK_BATCH_BYTES_MAX + REPLICAS_MAX * 68 + 64 < LINK_BYTES_MAX, "a link with every member's vote fits");
assert(HISTORY_BYTES_MAX + BATCH_BYTES_MAX < FRAME_BYTES_MAX + 1, "a history answer with one more batch fits a frame");
