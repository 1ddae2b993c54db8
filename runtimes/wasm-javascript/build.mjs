// Builds the JavaScript component: `node build.mjs OUTPUT PACKAGES`.

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { componentize } from "componentize-qjs";
import { build } from "esbuild";
import { modulesOf, writeShipped } from "../shipped.mjs";
import { plain, sections } from "./plain.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const entry = here + "piecework-runner/runner.mjs";

// componentize-qjs closes the engine's module loader by composing the component with a stub for it. We keep the loader,
// so that the host hands out a bundle's modules one by one; hence the inner component is taken out again.
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md: section 4 is a nested component.
const COMPONENT_SECTION = 4;

function engineOf(composed) {
  const inner = [...sections(composed)].filter((section) => section.id === COMPONENT_SECTION).map((section) => section.body);
  inner.sort((one, other) => other.length - one.length);
  if (inner.length !== 2 || !inner[0].includes("local:init/module-loader")) {
    throw new Error("componentize-qjs composes its output in another way than version 0.4.5 did");
  }
  return inner[0];
}

// One file of the runner and the packages that it is made with.
const bundled = await build({
  entryPoints: [entry],
  bundle: true,
  write: false,
  format: "esm",
  target: "es2023",
  mainFields: ["module", "main"],
  alias: { tr46: here + "piecework-runner/hosts.mjs" },
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: "none",
  absWorkingDir: here,
  metafile: true,
});

const { component } = await componentize({
  witPath: here + "world.wit",
  jsSource: bundled.outputFiles[0].text,
  jsPath: entry,
  moduleRoot: here,
});
writeFileSync(process.argv[2], plain(engineOf(component)));
const engine = `${here}node_modules/componentize-qjs/package.json`;
writeShipped([engine, ...modulesOf(bundled.metafile, here)], process.argv[3]);
