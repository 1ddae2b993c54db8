import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";
import { writeShipped } from "../runtimes/shipped.mjs";

// For `npm run dev`: where a server listens that was started by hand.
const server = process.env.PIECEWORK_URL ?? "http://127.0.0.1:7433";

// The packages that the bundle has code of, for the bill of materials.
const shipped = {
  name: "shipped",
  generateBundle(_options, bundle) {
    const modules = Object.values(bundle).flatMap((chunk) => Object.entries(chunk.modules ?? {}));
    const kept = modules.filter(([, module]) => module.renderedLength > 0).map(([path]) => path.split("?")[0]);
    writeShipped(kept, new URL("build/packages", import.meta.url));
  },
};

export default defineConfig({
  base: "/portal/",
  plugins: [svelte(), shipped],
  publicDir: false,
  worker: { format: "es" },
  build: {
    target: "es2022",
    // Those that know `light-dark()`.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    outDir: "build/plain",
    // Nothing is inlined: the content policy has no `data:`.
    assetsInlineLimit: 0,
    // What it would preload comes with `import()` all the same, and its helper sets attributes that a policy may refuse.
    modulePreload: false,
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      "/portal/api": { target: server, changeOrigin: false },
      "/portal/session": { target: server, changeOrigin: false },
    },
  },
});
