/** What the library costs a page. The budget is five kilobytes, as they are sent. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";
import { expect, test } from "vitest";

const BUDGET_BYTES = 5_120;

test("the client is at most 5,120 bytes, minified and gzipped", async () => {
  const input = fileURLToPath(new URL("../../src/index.ts", import.meta.url));
  const bundle = await rolldown({ input });
  const { output } = await bundle.generate({ format: "esm", minify: true });
  await bundle.close();
  expect(output).toHaveLength(1);
  const { length } = gzipSync(output[0].code, { level: 9 });
  expect(length).toBeLessThanOrEqual(BUDGET_BYTES);
});
