import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

const other = process.env.TIDEGATE_PICTURES ? "pictures" : process.env.TIDEGATE_SOAK ? "soak" : undefined;

/** Tests in a real browser, against a running stack: see `make test-browser`. One after the other, on two cores. */
export default defineConfig({
  resolve: { alias: { "@tidegate/client": resolve(import.meta.dirname, "client/src/index.ts") } },
  test: {
    include: other ? [`tests/${other}.ts`] : ["tests/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["verbose"],
  },
});
