/** One replica of the counter: server.ts --config .kv/replica-0/node.yaml */
import { parseArgs } from "node:util";
import { serve } from "quorate/server";
import { Counter } from "./counter.ts";

const { config = "node.yaml" } = parseArgs({ options: { config: { type: "string" } } }).values;
process.exit(await serve({ config, service: (state) => new Counter(state) }));
