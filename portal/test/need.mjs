// What the tests need, and where it is.

import { existsSync } from "node:fs";
import { join } from "node:path";

export const root = new URL("../../", import.meta.url).pathname;
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
export const binary = process.env.PIECEWORK ?? join(target, "release/piecework");
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
/** Why nothing can be tested here, if so. */
export function missing() {
  if (!existsSync(binary)) return `no ${binary}: build it first`;
  if (!BROWSERS.some((path) => existsSync(path))) return "no chromium: install Debian's package chromium";
  return undefined;
}

export const chromiumPath = BROWSERS.find((path) => existsSync(path));
