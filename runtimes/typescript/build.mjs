// Bundles the program that makes JavaScript of TypeScript: `node build.mjs OUTPUT PACKAGES`.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { modulesOf, writeShipped } from "../shipped.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const { metafile } = await build({
  entryPoints: [`${here}translate.mjs`],
  bundle: true,
  format: "esm",
  target: "es2023",
  mainFields: ["module", "main"],
  minify: true,
  legalComments: "none",
  absWorkingDir: here,
  metafile: true,
  outfile: process.argv[2],
});
writeShipped(modulesOf(metafile, here), process.argv[3]);
