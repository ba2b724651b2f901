/**
 * The liars hold the only certificate for a batch that everybody else lost in a power failure before it was on any disk. They
 * report it to every synchronizer, and serve it to none. A synchronizer goes on without them (docs/protocol.md section 5).
 */
import { synchronizerOf } from "../../../server/consensus/selection.ts";
import { Stage } from "./stage.ts";

const REGENCIES_AHEAD = 3;

export function unservableRecord(seed: number): void {
  const n = [4, 7][seed % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => n - 1 - at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, guild, correct } = stage;
  const { view } = cluster;
  stage.request();
  cluster.tick(20_000);
  stage.deliver({ types: ["PROPOSE"] });
  const value = guild.batches.find((batch) => batch.instance === 1);
  const record = value ? guild.certify({ regency: 0, instance: 1 }, value.digest) : null;
  if (!record) throw new Error("nothing was certified");
  stage.drop();
  for (const id of correct) cluster.crash(id, 0);
  for (const id of correct) cluster.restart(id);
  stage.request();
  stage.live(() => {
    const installed = Math.max(...correct.map((id) => stage.replica(id).core.state.regency));
    for (let regency = Math.max(1, installed); regency <= installed + REGENCIES_AHEAD; regency++) {
      const synchronizer = synchronizerOf(view, regency);
      for (const liar of liars) {
        const { signature } = guild.stopData(liar, regency, record);
        stage.lie(liar, [synchronizer], { type: "STOPDATA", view: view.id, regency, record, signature });
      }
    }
  });
}
