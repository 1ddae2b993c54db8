// What a browser fetches before it shows anything.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { root } from "./need.mjs";
import { server } from "./server.mjs";

const checker = readFileSync(join(root, "portal/build/checker.wasm"));
export const hasChecker = checker.length > 0;
if (!hasChecker && process.env.CI) throw new Error("CI needs rustc's target wasm32-unknown-unknown");

const FIRST_LOAD_BYTES_MAX = 120 * 1024;
const CHECKER_BYTES_MAX = 150 * 1024;

test("the first load is small, without editor and charts", async () => {
  const page = await (await fetch(`${server.url}/portal/`)).text();
  const named = [...page.matchAll(/\/portal\/(assets\/[^"]+)/g)].map((found) => found[1]);
  assert.ok(named.some((name) => name.endsWith(".js")) && named.some((name) => name.endsWith(".css")), page);
  assert.ok(!named.some((name) => /editor|chart|proof|checker/.test(name)), `loaded only when they are needed: ${named}`);
  const packed = join(root, "portal/build/packed");
  const size = (name) => statSync(join(packed, `${name}.gz`)).size;
  const bytes = ["index.html", ...named.map((name) => name.replace("assets/", ""))].reduce((all, name) => all + size(name), 0);
  console.log(`first load: ${bytes} bytes in gzip`);
  assert.ok(bytes <= FIRST_LOAD_BYTES_MAX, `${bytes} bytes`);
});

test("the checker of proofs is small, and needs nothing of its page", { skip: hasChecker ? false : "built without the target wasm32-unknown-unknown" }, () => {
  const bytes = gzipSync(checker, { level: 9 }).length;
  console.log(`the checker of proofs: ${bytes} bytes in gzip`);
  assert.ok(bytes <= CHECKER_BYTES_MAX, `${bytes} bytes`);
  assert.deepEqual(WebAssembly.Module.imports(new WebAssembly.Module(checker)), []);
});

test("the server's files are those that were built", async () => {
  for (const name of readdirSync(join(root, "portal/build/plain/assets"))) {
    const response = await fetch(`${server.url}/portal/assets/${name}`, { headers: { "Accept-Encoding": "br" } });
    assert.equal(response.headers.get("content-encoding"), "br", name);
    assert.match(response.headers.get("cache-control"), /immutable/);
    assert.deepEqual(Buffer.from(await response.arrayBuffer()), readFileSync(join(root, "portal/build/plain/assets", name)), name);
  }
});
