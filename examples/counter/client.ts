/** Adds to the counter and prints the total: client.ts --cluster .kv/cluster.json 5 */
import { parseArgs } from "node:util";
import { connectService } from "quorate/client";

const { values, positionals } = parseArgs({ options: { cluster: { type: "string" } }, allowPositionals: true });
const counter = await connectService({ cluster: values.cluster ?? ".kv/cluster.json" });
const total = await counter.invokeOrdered(new TextEncoder().encode(`+${positionals[0] ?? "1"}`));
console.log(new TextDecoder().decode(total));
await counter.close();
