// Compresses what Vite has built, and lists it for the program's build: build/files.txt, with a line for each file of name, content
// type and ETag, parted by tabs.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const build = new URL("../build/", import.meta.url).pathname;
const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

const packed = join(build, "packed");
rmSync(packed, { recursive: true, force: true });
mkdirSync(packed, { recursive: true });
const assets = readdirSync(join(build, "plain/assets")).map((name) => join("assets", name));
const lines = ["index.html", ...assets.sort()].map((path) => {
  const bytes = readFileSync(join(build, "plain", path));
  const [name, type] = [basename(path), types[extname(path)]];
  if (!type) throw new Error(`no content type is known for ${name}`);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  writeFileSync(join(packed, `${name}.br`), brotliCompressSync(bytes, { params }));
  writeFileSync(join(packed, `${name}.gz`), gzipSync(bytes, { level: 9 }));
  const etag = createHash("sha256").update(bytes).digest("hex").slice(0, 32);
  return `${name}\t${type}\t"${etag}"\n`;
});
writeFileSync(join(build, "files.txt"), lines.join(""));
