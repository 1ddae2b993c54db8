// Which npm packages a bundle contains, for the bill of materials: a line for each of name, version and licence, parted by tabs.

import { readFileSync, writeFileSync } from "node:fs";

const FOLDER = "/node_modules/";

// The folder of the package that the file at `path` belongs to, if it comes from one.
function packageOf(path) {
  const at = path.lastIndexOf(FOLDER);
  if (at < 0) return undefined;
  const names = path.slice(at + FOLDER.length).split("/");
  return path.slice(0, at + FOLDER.length) + names.slice(0, names[0].startsWith("@") ? 2 : 1).join("/");
}

// `paths` are absolute, of the modules that a bundle has code of.
export function writeShipped(paths, output) {
  const folders = new Set([...paths].map(packageOf).filter((folder) => folder));
  const lines = [...folders].map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    if (!name || !version || !license) throw new Error(`${folder} does not name itself, its version and its licence`);
    return `${name}\t${version}\t${license}\n`;
  });
  writeFileSync(output, [...new Set(lines)].sort().join(""));
}

// The modules that esbuild has put code of into its output. It names them relative to `folder`.
export function modulesOf(metafile, folder) {
  const outputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
  return outputs.filter(([, input]) => input.bytesInOutput > 0).map(([path]) => folder + path);
}
