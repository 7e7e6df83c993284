import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

/** The tests that need no stack. `vitest.stack.config.ts` has the others. */
export default defineConfig({
  resolve: { alias: { "@tidegate/client": resolve(import.meta.dirname, "client/src/index.ts") } },
  test: { include: ["client/test/unit/**/*.test.ts", "app/test/**/*.test.{ts,tsx}"] },
});
