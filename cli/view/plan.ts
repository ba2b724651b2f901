/**
 * What a change of the membership will mean, before anything is signed: pure. Guarantees: a change that would be refused is refused
 * here, with the same code, but for the READY that is not there yet.
 */
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assertNever, QuorateError } from "../../protocol/errors.ts";
import { REPLICAS_MAX } from "../../protocol/limits.ts";
import { changedView, REFUSALS } from "../../protocol/next-view.ts";
import type { Change } from "../../protocol/reconfiguration.ts";
import { faultsTolerated, type Member, memberOf, quorumOf, replicasFor, type View } from "../../protocol/view.ts";
import { tableText } from "../text.ts";

export interface Sizes {
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
  /** So many may be stopped at once and the others go on. */
  readonly mayStop: number;
}

export interface Plan {
  /** What is done, for people. */
  readonly text: string;
  readonly view: number;
  readonly before: Sizes;
  readonly after: Sizes;
  /** What an operator should know. */
  readonly notes: readonly string[];
}

/** @throws QuorateError REFUSED when the cluster would refuse it whatever the READY says */
export function planOf(crypto: Crypto, view: View, change: Change): Plan {
  const made = changedView(crypto, view, { change, instance: 0 });
  if ("refused" in made && made.refused !== "READY_AGE" && made.refused !== "READY_SIGNATURE") {
    const { refused } = made;
    const why = refused === "SIZES" ? sizesRefused(view, change) : REFUSALS[refused];
    throw new QuorateError("REFUSED", `the change is refused: ${why} (${refused})`, { reason: refused });
  }
  const { mode } = view;
  const sizes = ({ n, f }: { n: number; f: number }): Sizes => {
    const quorum = quorumOf({ n, f, mode });
    return { n, f, quorum, mayStop: n - quorum };
  };
  const before = sizes(view);
  const after = sizes(sizesAfter(view, change));
  return { text: textOf(view, change), view: view.id, before, after, notes: notesOn(view, { change, before, after }) };
}

function sizesRefused(view: View, change: Change): string {
  const { mode } = view;
  const { n, f } = sizesAfter(view, change);
  if (n > REPLICAS_MAX) return `there are at most ${REPLICAS_MAX} replicas; there would be ${n}`;
  return `f=${f} takes ${replicasFor({ f, mode })} replicas in ${mode}; there would be ${n}`;
}

function sizesAfter({ n, f }: View, change: Change): { n: number; f: number } {
  switch (change.type) {
    case "add":
      return { n: n + 1, f };
    case "remove":
      return { n: n - 1, f };
    case "setF":
      return { n, f: change.f };
    case "replace":
    case "setAddress":
    case "rotateKey":
    case "administrators":
      return { n, f };
    default:
      return assertNever(change);
  }
}

function place({ host, clientPort }: Pick<Member, "host" | "clientPort">): string {
  return `${host}:${clientPort}`;
}

function textOf(view: View, change: Change): string {
  switch (change.type) {
    case "add":
      return `add replica ${change.member.id} at ${place(change.member)}`;
    case "remove":
      return `remove replica ${change.id}`;
    case "replace":
      return `replace replica ${change.id} by replica ${change.member.id} at ${place(change.member)}`;
    case "setF":
      return `set f from ${view.f} to ${change.f}`;
    case "setAddress":
      return `move replica ${change.id} from ${place(memberOf(view, change.id) as Member)} to ${place(change.address)}`;
    case "rotateKey":
      return `change the keys of replica ${change.id}`;
    case "administrators":
      return `set ${change.keys.length} administrators, of whom ${change.threshold} sign`;
    default:
      return assertNever(change);
  }
}

function moveNote(view: View, { id, address }: Extract<Change, { type: "setAddress" }>): string {
  if (memberOf(view, id)?.host === address.host) return "the replica moves to the new ports by itself";
  return "another machine: start the replica there first, with listen.host in its node.yaml, or it is down until it is there";
}

function notesOn(
  view: View,
  { change, before, after }: { change: Change; before: Sizes; after: Sizes },
): readonly string[] {
  const notes: string[] = [];
  const { mode } = view;
  const most = faultsTolerated({ n: after.n, mode });
  if (after.f === 0) notes.push("no replica may be faulty then");
  else if (after.f < before.f) notes.push(`f falls from ${before.f} to ${after.f}: so many may be faulty then`);
  if (after.mayStop < before.mayStop) notes.push(`only ${after.mayStop} may be stopped at once then`);
  if (most > after.f && change.type !== "setF") {
    notes.push(`${after.n} replicas can stand ${most} faults: kv view set-f ${most}`);
  }
  if (change.type === "setAddress") notes.push(moveNote(view, change));
  return notes;
}

/** The plan as lines for a terminal. */
export function planText(plan: Plan): string {
  const { before, after } = plan;
  const row = (what: string, field: keyof Sizes): string[] => [what, `${before[field]}`, `${after[field]}`];
  const table = tableText(
    ["", "now", "then"],
    [row("replicas (n)", "n"), row("faulty (f)", "f"), row("quorum", "quorum"), row("may be stopped", "mayStop")],
  );
  const notes = plan.notes.map((note) => `note: ${note}\n`).join("");
  return `${plan.text}: view ${plan.view} -> ${plan.view + 1}\n${table}${notes}`;
}
