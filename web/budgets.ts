/** What a person loads, held to a budget: a build that is above it fails. */

import { gzipSync } from "node:zlib";
import type { Plugin, Rolldown } from "vite";

/** What the first load of an entry may weigh with everything that it may load later, gzip -9, in bytes. */
const BUDGETS: Record<string, number> = { viewer: 60 * 1024, index: 120 * 1024 };

export function budgets(): Plugin {
  return {
    name: "budgets",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        for (const [entry, most] of Object.entries(BUDGETS)) {
          const weight = weightOf(entry, bundle);
          if (weight > most) this.error(`${entry}: ${weight} bytes with gzip, allowed are ${most}`);
          this.info(`${entry}: ${weight} of ${most} bytes with gzip`);
        }
      },
    },
  };
}

function weightOf(entry: string, bundle: Rolldown.OutputBundle): number {
  const chunks = Object.values(bundle).filter((one) => one.type === "chunk");
  const first = chunks.find((chunk) => chunk.isEntry && chunk.name === entry);
  if (!first) throw new Error(`There is no entry ${entry}`);
  const files = new Set<string>();
  const reach = (name: string): void => {
    const chunk = bundle[name];
    if (files.has(name) || chunk?.type !== "chunk") return;
    files.add(name);
    for (const css of (chunk as { viteMetadata?: { importedCss: Set<string> } }).viteMetadata?.importedCss ?? []) files.add(css);
    for (const next of [...chunk.imports, ...chunk.dynamicImports]) reach(next);
  };
  reach(first.fileName);
  let sum = 0;
  for (const name of files) {
    const file = bundle[name];
    const content = file?.type === "chunk" ? file.code : file?.source;
    sum += gzipSync(content ?? "", { level: 9 }).length;
  }
  return sum;
}
