/** The stage on the event loop (contract.ts): examined at once, signatures verified on the thread pool. `workers: 0`. */
import { copyOf } from "../../protocol/bytes.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { ClientConnection } from "../network/contract.ts";
import type { IntakeStage, OpenIntakeStage, Outcome, StageOptions } from "./contract.ts";
import { examine } from "./examine.ts";
import { ConnectionOrder } from "./order.ts";

export class InThreadStage implements IntakeStage {
  readonly #options: StageOptions;
  readonly #order: ConnectionOrder;

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
    const place = this.#order.join(connection, bytes);
    this.#options.verifier([authentication], ([valid]) => {
      this.#order.settle(place, { request, envelope, envelopeBytes, proof: valid ? "authentic" : "forged" });
    });
    return true;
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
