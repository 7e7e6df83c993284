import { resolve } from "node:path";
import { defineConfig } from "vite";
import { budgets } from "./budgets.js";

// The API and the WebSocket are at the same origin as the pages. `npx vite` in `web` proxies both to a running stack.
const edge = process.env.TIDEGATE_EDGE_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  root: "app",
  publicDir: "public",
  resolve: { alias: { "@tidegate/client": resolve(import.meta.dirname, "client/src/index.ts") } },
  plugins: [budgets()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: resolve(import.meta.dirname, "dist"),
    emptyOutDir: true,
    target: "es2023",
    sourcemap: false,
    // An inlined file is a `data:` address, which the pages' policy refuses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: {
        index: resolve(import.meta.dirname, "app/index.html"),
        viewer: resolve(import.meta.dirname, "app/viewer.html"),
      },
    },
  },
  server: { proxy: { "/api": edge, "/gateway": { target: edge, ws: true } } },
});
