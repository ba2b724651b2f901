/**
 * The stage on the event loop (contract.ts): examined at once, signatures verified on the thread pool, few at once and each
 * client's in turn, so that those of consensus do not wait behind a flood. `workers: 0`.
 */
import { copyOf } from "../../protocol/bytes.ts";
import { isRejection } from "../../protocol/errors.ts";
import { VERIFYING_MAX } from "../../protocol/limits.ts";
import { requestCost } from "../consensus/admission.ts";
import type { SignatureCheck } from "../consensus/contract.ts";
import { FairTasks } from "../fair-tasks.ts";
import type { ClientConnection } from "../network/contract.ts";
import type { IntakeStage, Judged, OpenIntakeStage, Outcome, StageOptions } from "./contract.ts";
import { examine } from "./examine.ts";
import { ConnectionOrder, type Place } from "./order.ts";

interface Signed extends Omit<Judged, "proof"> {
  readonly place: Place;
  readonly check: SignatureCheck;
}

export class InThreadStage implements IntakeStage {
  readonly #options: StageOptions;
  readonly #order: ConnectionOrder;
  readonly #signed = new FairTasks<Signed>();
  #verifying = 0;

  /** `order`: shared with whoever else judges requests of the same connections. */
  constructor(options: StageOptions, order: ConnectionOrder) {
    this.#options = options;
    this.#order = order;
  }

  get waiting(): number {
    return this.#order.waiting;
  }

  submit(connection: ClientConnection, envelopeView: Uint8Array, requestView: Uint8Array): boolean {
    const bytes = envelopeView.length + requestView.length;
    if (!this.#order.room(connection.client, bytes)) return false;
    const { crypto, cluster, keysOf } = this.#options;
    const envelopeBytes = copyOf(envelopeView);
    const by = { crypto, cluster, keysOf, position: this.#options.position() };
    const examined = examine(by, envelopeBytes, copyOf(requestView));
    if (isRejection(examined)) {
      this.#settled(connection, bytes, examined);
      return true;
    }
    const { request, envelope, authentication } = examined;
    if (typeof authentication === "string") {
      this.#settled(connection, bytes, { request, envelope, envelopeBytes, proof: authentication });
      return true;
    }
    if (!this.#signed.room(connection.client, bytes)) return false;
    const place = this.#order.join(connection, bytes);
    const cost = requestCost(requestView.length, request.commands.length);
    const signed = { request, envelope, envelopeBytes, place, check: authentication };
    this.#signed.add(connection.client, signed, { cost, bytes });
    this.#verify();
    return true;
  }

  /** As many as the thread pool should have at once, in turn. */
  #verify(): void {
    this.#signed.run(
      () => this.#verifying < VERIFYING_MAX,
      ({ place, check, ...judged }) => {
        this.#verifying++;
        this.#options.verifier([check], ([valid]) => {
          this.#verifying--;
          this.#order.settle(place, { ...judged, proof: valid ? "authentic" : "forged" });
          this.#verify();
        });
        return 0;
      },
    );
  }

  /** Known already: nothing is kept unless it has to wait for its turn. */
  #settled(connection: ClientConnection, bytes: number, outcome: Outcome): void {
    if (this.#order.waits(connection)) this.#order.settle(this.#order.join(connection, bytes), outcome);
    else this.#options.judged(connection, outcome);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export const inThreadStage: OpenIntakeStage = (options) =>
  new InThreadStage(options, new ConnectionOrder((connection, outcome) => options.judged(connection, outcome)));
