// Bundles the program that makes JavaScript of TypeScript: `node build.mjs OUTPUT`.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
await build({
  entryPoints: [`${here}translate.mjs`],
  bundle: true,
  format: "esm",
  target: "es2023",
  mainFields: ["module", "main"],
  minify: true,
  legalComments: "none",
  outfile: process.argv[2],
});
