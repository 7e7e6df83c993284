import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

/** The tests of the client against a running stack; `make test-client` brings one up. */
export default defineConfig({
  resolve: { alias: { "@tidegate/client": resolve(import.meta.dirname, "client/src/index.ts") } },
  test: { include: ["client/test/stack/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false },
});
