import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// For `npm run dev`: where a server listens that was started by hand.
const server = process.env.PIECEWORK_URL ?? "http://127.0.0.1:7433";

export default defineConfig({
  base: "/portal/",
  plugins: [svelte()],
  publicDir: false,
  worker: { format: "es" },
  build: {
    target: "es2022",
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
