import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

/** The package by its own name, as examples import it, from its sources. */
const source = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Set by CI: where the JSON report of the run goes. */
const report = process.env.QUORATE_TEST_REPORT;

export default defineConfig({
  resolve: {
    alias: { "quorate/client": source("client/index.ts"), "quorate/server": source("server/index.ts") },
  },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 3,
    reporters: report ? ["default", ["json", { outputFile: report }]] : ["default"],
  },
});
