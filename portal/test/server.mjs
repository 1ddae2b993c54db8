// A real `piecework up` on a directory of its own, and a real browser. All tests share them.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { chromium } from "playwright-core";
import { binary, chromiumPath, root } from "./need.mjs";

const STARTS_WITHIN_MS = 120_000;

export async function up(data = mkdtempSync(join(tmpdir(), "piecework-portal-")), listen = "127.0.0.1:0") {
  const child = spawn(binary, ["up", "--data", data, "--listen", listen], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (part) => (log = (log + part).slice(-20_000)));
  const url = await new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`not ready in time:\n${log}`)), STARTS_WITHIN_MS);
    let out = "";
    child.stdout.on("data", (part) => {
      out += part;
      const ready = /^ready (\S+)$/m.exec(out);
      if (ready) {
        clearTimeout(limit);
        resolve(ready[1].replace(/\/$/, ""));
      }
    });
    child.once("exit", (code) => reject(new Error(`it ended with ${code}:\n${log}`)));
  });
  const token = readFileSync(join(data, "token"), "utf8").trim();
  const end = async (signal) => {
    child.removeAllListeners("exit");
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  };
  const stop = async () => {
    await end("SIGTERM");
    rmSync(data, { recursive: true, force: true });
  };
  return { url, token, data, end, stop, log: () => log };
}

export const server = await up();
export const browser = await chromium.launch({
  executablePath: chromiumPath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
after(async () => {
  await browser.close();
  await server.stop();
});

/** The API as a program uses it. */
export async function api(token, method, path, body, headers = {}) {
  const response = await fetch(server.url + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(body ? { "Content-Type": "application/json" } : {}), ...headers },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

export const PASSWORD = "correct horse battery";

/** Another account, with credits. */
export async function person(name, grant_ucr = 1_000_000) {
  const invite = await api(server.token, "POST", "/invites", { grant_ucr });
  const made = await fetch(`${server.url}/accounts`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, password: PASSWORD, invite: invite.code }),
  });
  if (!made.ok) throw new Error(await made.text());
  const session = await fetch(`${server.url}/sessions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, password: PASSWORD }),
  });
  return (await session.json()).token;
}

/** With `PORTAL_FROM_BUILD=1`: the pages of `npm run build`, under the program's headers, before the program is built with them. */
async function fromBuild(context, at) {
  const plain = join(root, "portal/build/plain");
  await context.route(`${at}/portal/**`, async (route) => {
    const { pathname } = new URL(route.request().url());
    if (/^\/portal\/(api\/|session)/.test(pathname)) return route.fallback();
    const asset = /^\/portal\/(assets\/.+)$/.exec(pathname)?.[1];
    if (asset) return route.fulfill({ path: join(plain, asset) });
    return route.fulfill({ response: await route.fetch(), path: join(plain, "index.html"), contentType: "text/html" });
  });
}

/** A window of its own cookies, whose errors fail the test that looks at `faults`. */
export async function opened(options = {}, at = server.url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 850 }, ...options });
  if (process.env.PORTAL_FROM_BUILD) await fromBuild(context, at);
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`page: ${error.message}`));
  page.on("console", (message) => {
    // The browser notes each refusal of the server, which the page then shows. Where somebody types over a selection, the browser itself
    // tries to keep its look by a style that the policy refuses; the editor then draws its own.
    const isKnown = /Failed to load resource|^Applying inline style violates/.test(message.text());
    if (message.type() === "error" && !isKnown) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== at && !["data:", "blob:"].includes(protocol)) faults.push(`request to ${request.url()}`);
  });
  return { context, page, faults };
}

/** A window of somebody who has signed in. */
export async function signedIn(name, options = {}) {
  const window = await opened(options);
  await signIn(window.page, name);
  return window;
}

export async function signIn(page, name) {
  await page.goto(`${server.url}/portal/sign-in`);
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: `Hello, ${name}` }).waitFor();
}
