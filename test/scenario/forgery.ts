/** What a Byzantine replica says: messages made by hand, signed with its own key, out of statements really made by others. */
import { encodeBatch } from "../../protocol/batch.ts";
import { utf8 } from "../../protocol/bytes.ts";
import {
  type Certificate,
  type Message,
  type StopData,
  stopDataStatement,
  writeStatement,
} from "../../protocol/messages.ts";
import { CLUSTER, ENVELOPE, signerOf } from "../simulation/core-cluster.ts";
import type { NamedBatch } from "./names.ts";
import { after, numbers, type Place, placeOf, ScriptError, setting } from "./script.ts";
import type { ScriptedCluster } from "./scripted-cluster.ts";

/** "2!" is 2, badly. */
function signed(id: number, bad: boolean, statement: Uint8Array): Uint8Array {
  const signature = signerOf(id)(statement);
  return bad ? signature.map((byte) => byte ^ 1) : signature;
}

export class Forgery {
  readonly #cluster: ScriptedCluster;
  readonly #certificates = new Map<string, Certificate>();
  readonly #stopData = new Map<string, StopData>();

  constructor(cluster: ScriptedCluster) {
    this.#cluster = cluster;
  }

  /** The batch of this name at its instance, made now if nobody made it before. */
  #batch(
    { instance, batch: name }: Place,
    timestampMs?: number,
  ): NamedBatch & { readonly requests: readonly string[] } {
    if (name === null) throw new ScriptError("which batch?");
    const { names, core } = this.#cluster;
    const requests = name
      .replace(/^\[|\]'*$/g, "")
      .split(" ")
      .filter((each) => each !== "");
    const known = names.find(instance, name);
    if (known) return { ...known, requests };
    const bytes = encodeBatch({
      instance,
      timestampMs: timestampMs ?? Math.floor(core.nowUs / 1000) + (name.split("'").length - 1),
      requests: requests.map((each) => this.#cluster.requestNamed(each).bytes),
    });
    names.batch(bytes);
    const made = names.find(instance, name);
    return made ? { ...made, requests } : { instance, bytes, digest: names.invent(name), requests };
  }

  /** `certificate c of r0 i1 [a] by 0,1,2` or `certificate d from c as r1 i2 [b] view=1`. */
  certificate(name: string, words: readonly string[]): Certificate {
    const place = placeOf(words);
    const { regency, instance } = place;
    const { digest } = this.#batch(place);
    const view = Number(setting(words, "view") ?? 0);
    const source = after(words, "from");
    const statement = { view, regency, instance, digest };
    const votes = source ? this.#certificate(source).votes : this.#votes(after(words, "by") ?? "", statement);
    const certificate = { ...statement, votes };
    this.#certificates.set(name, certificate);
    return certificate;
  }

  #votes(voters: string, statement: Omit<Certificate, "votes">): Certificate["votes"] {
    const { writes, byzantine, core } = this.#cluster;
    const { regency, instance, digest } = statement;
    return voters.split(",").map((voter) => {
      const bad = voter.endsWith("!");
      const [replica = 0] = numbers(voter.replace("!", ""));
      const own = bad || byzantine.has(replica) || replica >= core.view.n;
      const signature = own
        ? signed(replica, bad, writeStatement(CLUSTER, statement))
        : writes.get(`${replica} r${regency} i${instance} ${digest}`);
      if (!signature) throw new ScriptError(`replica ${replica} never wrote that`);
      return { replica, signature };
    });
  }

  #certificate(name: string): Certificate {
    const certificate = this.#certificates.get(name);
    if (!certificate) throw new ScriptError(`no certificate ${name}`);
    return certificate;
  }

  /** `stopdata s of 3 r1 none` or `stopdata s of 3! r1 c`. */
  stopData(name: string, words: readonly string[]): StopData {
    const signer = after(words, "of") ?? "";
    const [replica = 0] = numbers(signer.replace("!", ""));
    this.#mayForge(replica, signer.endsWith("!"));
    const data = this.#report(replica, words, signer.endsWith("!"));
    this.#stopData.set(name, data);
    return data;
  }

  #mayForge(replica: number, bad: boolean): void {
    const { byzantine, core } = this.#cluster;
    if (!bad && replica < core.view.n && !byzantine.has(replica))
      throw new ScriptError(`replica ${replica} is correct`);
  }

  #report(replica: number, words: readonly string[], bad: boolean): StopData {
    const { regency } = placeOf(words);
    const last = words.filter((word) => word !== "!").at(-1) ?? "none";
    const record = last === "none" ? null : this.#certificate(last);
    const view = Number(setting(words, "view") ?? 0);
    const statement = stopDataStatement(CLUSTER, { view, regency, replica }, record);
    return { replica, record, signature: signed(replica, bad, statement) };
  }

  #reports(text: string, regency: number): StopData[] {
    return text.split(",").map((name) => {
      const sent = this.#cluster.stopData.get(name.includes("@") ? name : `${name}@r${regency}`);
      const found = this.#stopData.get(name) ?? sent;
      if (!found) throw new ScriptError(`no STOPDATA ${name}`);
      return found;
    });
  }

  /** `forge 0>1 PROPOSE r0 i1 [a]`: the message after the link. */
  message(from: number, [type, ...words]: readonly string[]): Message {
    this.#mayForge(from, false);
    const place = placeOf(words);
    const { regency, instance } = place;
    const header = { view: Number(setting(words, "view") ?? 0), regency };
    const bad = words.includes("!");
    switch (type) {
      case "PROPOSE": {
        if (words.includes("garbage")) return { type, ...header, instance, batch: utf8("garbage"), envelopes: [] };
        const timestamp = setting(words, "timestamp");
        const { bytes, requests } = this.#batch(place, timestamp === undefined ? undefined : Number(timestamp));
        const envelopes = words.includes("no-envelopes") ? [] : requests.map((name) => this.#envelope(name));
        return { type, ...header, instance, batch: bytes, envelopes };
      }
      case "WRITE": {
        const statement = { ...header, instance, digest: this.#batch(place).digest };
        return { type, ...statement, signature: signed(from, bad, writeStatement(CLUSTER, statement)) };
      }
      case "ACCEPT":
        return { type, ...header, instance, digest: this.#batch(place).digest };
      case "STOP": {
        const named = after(words, "naming");
        return { type, ...header, named: named ? [this.#cluster.names.clientNamed(named)] : [] };
      }
      case "STOPDATA": {
        const { record, signature } = this.#report(from, words, bad);
        return { type, ...header, record, signature };
      }
      case "SYNC": {
        const stopData = this.#reports(after(words, "of") ?? "", regency);
        const record = stopData.find((data) => data.record)?.record;
        const { bytes, requests } = this.#batch({ ...place, instance: instance || (record?.instance ?? 1) });
        return { type, ...header, stopData, batch: bytes, envelopes: requests.map((name) => this.#envelope(name)) };
      }
      default:
        throw new ScriptError(`no message ${type}`);
    }
  }

  #envelope(request: string): Uint8Array {
    return this.#cluster.envelopes.get(this.#cluster.requestNamed(request).digest) ?? ENVELOPE;
  }
}
