// The main path in Firefox, by WebDriver BiDi. Firefox is not among what the tests need: without it, nothing is tested here.
// Set PORTAL_FIREFOX to a program that is not Debian's firefox-esr.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasChecker } from "./bundle.mjs";
import { PASSWORD, api, person, server } from "./server.mjs";

const firefox = [process.env.PORTAL_FIREFOX, "/usr/bin/firefox-esr"].find((path) => path && existsSync(path));
const { ws: WebSocket } = createRequire(import.meta.url)("playwright-core/lib/utilsBundle");

/** A browser of its own profile, and one command at a time. */
async function started() {
  const profile = mkdtempSync(join(tmpdir(), "piecework-firefox-"));
  const child = spawn(firefox, ["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", profile], { env: { ...process.env, HOME: profile }, stdio: ["ignore", "ignore", "pipe"] });
  const address = await new Promise((resolve, reject) => {
    let log = "";
    child.stderr.on("data", (part) => {
      log += part;
      const found = /WebDriver BiDi listening on (ws:\S+)/.exec(log);
      if (found) resolve(found[1]);
    });
    child.once("exit", (code) => reject(new Error(`Firefox ended with ${code}:\n${log}`)));
  });
  const socket = new WebSocket(`${address}/session`);
  await new Promise((resolve, reject) => (socket.once("open", resolve), socket.once("error", reject)));
  const waiting = new Map();
  socket.on("message", (text) => {
    const told = JSON.parse(text);
    waiting.get(told.id)?.(told);
    waiting.delete(told.id);
  });
  let last = 0;
  const ask = async (method, params = {}) => {
    const told = await new Promise((resolve) => {
      waiting.set((last += 1), resolve);
      socket.send(JSON.stringify({ id: last, method, params }));
    });
    if (told.type === "error") throw new Error(`${method}: ${told.error}: ${told.message}`);
    return told.result;
  };
  await ask("session.new", { capabilities: {} });
  const { context } = (await ask("browsingContext.getTree")).contexts[0];
  const run = async (expression) => {
    const told = await ask("script.evaluate", { expression, target: { context }, awaitPromise: true });
    if (told.type === "exception") throw new Error(told.exceptionDetails.text);
    return told.result.value;
  };
  const end = async () => {
    socket.close();
    child.removeAllListeners("exit");
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill();
    await gone;
    rmSync(profile, { recursive: true, force: true });
  };
  return { go: (url) => ask("browsingContext.navigate", { context, url, wait: "complete" }), run, end };
}

/** In the page: waits for an element of a selector with a text, and does something with it. */
const when = (selector, text, act = "") => `new Promise((resolve, reject) => {
  const limit = setTimeout(() => reject(new Error(${JSON.stringify(`no ${selector} with ${text}`)} + " in: " + document.body.innerText.slice(0, 500))), 30000);
  (function look() {
    const one = [...document.querySelectorAll(${JSON.stringify(selector)})].find((each) => (each.textContent + (each.ariaLabel ?? "")).includes(${JSON.stringify(text)}) && !each.disabled);
    if (!one) return void setTimeout(look, 50);
    clearTimeout(limit);
    ${act};
    resolve(one.textContent);
  })();
})`;
const click = (selector, text) => when(selector, text, "one.click()");
const fill = (selector, value) => when(selector, "", `one.value = ${JSON.stringify(value)}; one.dispatchEvent(new Event("input", { bubbles: true }))`);

test("in Firefox, too, somebody signs in, runs a function, and checks its proof", { skip: firefox ? false : "no firefox-esr" }, async () => {
  const token = await person("fay");
  await api(token, "POST", "/functions", { name: "foxy", language: "javascript", code: "export default (event) => ({ told: event.name });\n" });
  const invite = await api(server.token, "POST", "/invites", { grant_ucr: 1_000 });
  const { go, run, end } = await started();
  try {
    await go(`${server.url}/portal/sign-in`);
    await run(fill("input[autocomplete=username]", "fay"));
    await run(fill("input[type=password]", PASSWORD));
    await run(click("form button.main", "Sign in"));
    await run(when("h1", "Hello, fay"));
    await run(when(".dot", "Live"));
    await go(`${server.url}/portal/functions/foxy`);
    await run(when(".editor", "", "if (!one.shadowRoot?.querySelector('.cm-content')) return void setTimeout(look, 50)"));
    await run(fill("textarea", '{"name": "a fox"}'));
    await run(click("button", "Run version 1"));
    await run(when("pre", "a fox"));
    await run(click("a", "Show the job"));
    await run(when("a", "paid in block"));
    if (hasChecker) {
      await run(click("button", "Check this proof"));
      await run(when("p", "The proof holds."));
    }
    await go(`${server.url}/portal/system`);
    await run(when(".u-over", ""));
    const colours = await run("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.card')).backgroundColor");
    assert.match(colours, /^rgb\(\d+, \d+, \d+\)rgb\(\d+, \d+, \d+\)$/);
    // An account with a key that Firefox makes.
    await run(click("button", "Sign out"));
    await run(when("h1", "Sign in to Piecework"));
    await go(`${server.url}/portal/sign-up?invite=${invite.code}`);
    await run(click("button", "Key of this browser"));
    await run(fill("input[autocomplete=username]", "fritz"));
    await run(click("form button.main", "Create an account"));
    await run(when("h1", "Hello, fritz"));
  } finally {
    await end();
  }
});
