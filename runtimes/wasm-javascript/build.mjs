import { readFileSync, writeFileSync } from "node:fs";
import { componentize } from "componentize-qjs";
const here = new URL(".", import.meta.url).pathname;
const { component } = await componentize({ witPath: here + "world.wit", jsSource: readFileSync(here + "runner.mjs", "utf8") });
writeFileSync(process.argv[2], component);
