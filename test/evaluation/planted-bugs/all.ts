/** All planted bugs, by the part of the protocol that they break. */
import { CRASH_MODE_BUGS } from "./crash-mode.ts";
import { LIVENESS_BUGS } from "./liveness.ts";
import { LOAD_BUGS } from "./load.ts";
import type { Mutation } from "./mutation.ts";
import { RECOVERY_BUGS } from "./recovery.ts";
import { RESTART_BUGS } from "./restart.ts";
import { RIGHTS_BUGS } from "./rights.ts";
import { SERVICE_BUGS } from "./service.ts";
import { SYNCHRONIZATION_BUGS } from "./synchronization.ts";
import { TURN_BUGS } from "./turns.ts";
import { VIEW_BUGS } from "./views.ts";
import { VOTING_BUGS } from "./voting.ts";

export const PLANTED_BUGS: readonly Mutation[] = [
  ...VOTING_BUGS,
  ...SYNCHRONIZATION_BUGS,
  ...RESTART_BUGS,
  ...RECOVERY_BUGS,
  ...LIVENESS_BUGS,
  ...RIGHTS_BUGS,
  ...TURN_BUGS,
  ...SERVICE_BUGS,
  ...CRASH_MODE_BUGS,
  ...LOAD_BUGS,
  ...VIEW_BUGS,
];
