// Every page in both colours and several widths: axe finds nothing, nothing is wider than the window, and a picture is kept in
// build/shots for people to look at.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { before, test } from "node:test";
import { root } from "./need.mjs";
import { api, opened, person, server, signIn } from "./server.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = join(root, "portal/build/shots");
rmSync(shots, { recursive: true, force: true });
mkdirSync(shots, { recursive: true });

const WIDTHS = [320, 768, 1280, 2560];
/** Where axe looks: what changes between widths is what is hidden, and the menu. */
const CHECKED = [320, 1280];

async function look(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const moving = await page.evaluate(() => document.getAnimations().filter((one) => one.playState === "running").length);
    if (moving > 0) found.push(`${name} moves, though the person asked for no motion`);
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: width < 700 ? 700 : 900 });
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (wider > 0) found.push(`${name} is ${wider} px wider than a window of ${width}`);
      await page.screenshot({ path: join(shots, `${name}-${colorScheme}-${width}.png`), fullPage: true, animations: "disabled" });
      if (CHECKED.includes(width)) await check(page, `${name}, ${colorScheme}, ${width}`);
    }
  }
}

async function check(page, what) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const said = violations.map((one) => `${one.id} (${one.impact}): ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
  found.push(...said.map((one) => `${what}: ${one}`));
}
/** Told all at once, at the end of a test. */
const found = [];
function nothingFound() {
  assert.deepEqual(found.splice(0), []);
}

async function settled(page) {
  await page.waitForFunction(() => document.querySelector("h1") && !document.querySelector("[aria-busy=true]"));
}

/** What there is to look at. */
let job, broken, height, transaction;
const python = `def handler(event, context):
    name = (event or {}).get("name") or "world"
    if name == "nobody":
        raise ValueError("there is nobody of this name")
    print(f"job {context.job_id} greets {name}")
    return {"message": f"Hello, {name}!", "letters": len(name)}
`;
before(async () => {
  const ada = await person("ada", 20_000_000);
  await api(ada, "POST", "/functions", { name: "hello", language: "python", code: python, public: true, env: { GREETING: "Hello" } });
  await api(ada, "PUT", "/functions/hello", { code: python.replace("Hello", "Good day") });
  await api(ada, "POST", "/functions", { name: "invoice-totals-of-the-month", language: "javascript", code: "export default (event) => event;\n" });
  for (let run = 0; run < 12; run += 1) {
    job = (await api(ada, "POST", "/execute/hello", { input: { name: ["Ada", "Grace", "Barbara"][run % 3] } })).job_id;
  }
  try {
    await api(ada, "POST", "/execute/hello", { input: { name: "nobody" } });
  } catch (error) {
    broken = JSON.parse(error.message.slice(error.message.indexOf("{"))).error.job_id;
  }
  await person("ben", 0);
  await api(ada, "POST", "/transfers", { to: "ben", amount_ucr: 250_000, memo: "for lunch" });
  for (let tries = 0; !(await api(ada, "GET", `/jobs/${job}`)).paid; tries += 1) {
    assert.ok(tries < 200, "it is paid");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  height = (await api(ada, "GET", `/jobs/${job}`)).paid_height;
  transaction = (await api(ada, "GET", `/ledger/blocks/${height}`)).items[0].id;
});

test("every page looks right before anybody has signed in", async () => {
  const { page, context, faults } = await opened();
  for (const [name, path] of [
    ["sign-in", "/sign-in"],
    ["sign-up", "/sign-up"],
    ["status", "/status"],
  ]) {
    await page.goto(`${server.url}/portal${path}`);
    await (name === "status" ? page.getByText("Everything answers.") : page.getByLabel("Name", { exact: true })).waitFor();
    await look(page, name);
  }
  assert.deepEqual(faults, []);
  nothingFound();
  await context.close();
});

const full = () => [
  ["home", "/"],
  ["functions", "/functions"],
  ["functions-none", "/functions?name=zzz"],
  ["new-function", "/functions/new"],
  ["function", "/functions/hello"],
  ["function-call", "/functions/hello?tab=call"],
  ["function-versions", "/functions/hello?tab=versions"],
  ["function-metrics", "/functions/hello?tab=metrics"],
  ["function-logs", "/functions/hello?tab=logs"],
  ["function-settings", "/functions/hello?tab=settings"],
  ["function-settings-edit", "/functions/hello?tab=settings&edit=1"],
  ["function-compare", "/functions/hello?tab=versions&from=1&to=2"],
  ["function-build-log", "/functions/hello?tab=versions&log=2"],
  ["function-gone", "/functions/nothing"],
  ["jobs", "/jobs"],
  ["job", `/jobs/${job}`],
  ["job-failed", `/jobs/${broken}`],
  ["providers", "/providers"],
  ["wallet", "/wallet"],
  ["transfer", "/wallet?tab=transfer"],
  ["ledger", "/ledger"],
  ["ledger-transactions", "/ledger?tab=transactions"],
  ["ledger-peers", "/ledger?tab=peers"],
  ["ledger-offers", "/ledger?tab=offers"],
  ["block", `/ledger/blocks/${height}`],
  ["transaction", `/ledger/transactions/${transaction}`],
  ["account", "/ledger/accounts/ada"],
  ["settings", "/settings"],
  ["settings-new-token", "/settings?new=token"],
  ["system", "/system"],
  ["no-page", "/nothing"],
];
/** In two windows at once: a picture waits for the browser most of the time. */
async function inTwo(pages, enter, visit) {
  const left = [...pages];
  const window = async () => {
    const { page, context, faults } = await opened();
    await enter(page);
    for (let next = left.shift(); next; next = left.shift()) {
      const [name, path] = next;
      await page.goto(`${server.url}/portal${path}`);
      await page.locator("h1").first().waitFor();
      await settled(page);
      await visit?.(page, name);
      await look(page, name);
    }
    assert.deepEqual(faults, []);
    await context.close();
  };
  await Promise.all([window(), window()]);
  nothingFound();
}

test("every page looks right, light and dark, at every width", async () => {
  await inTwo(full(), (page) => signIn(page, "ada"), async (page, name) => {
    if (name === "function" || name === "new-function") await page.locator(".cm-content").waitFor();
    if (/metrics|system/.test(name)) await page.locator(".u-over").first().waitFor();
  });
});

test("the palette, the keys and the menu look right", async () => {
  const { page, context, faults } = await opened();
  await signIn(page, "ada");
  await page.keyboard.press("ControlOrMeta+k");
  await page.keyboard.type("he");
  await page.getByRole("option", { name: /^hello/ }).waitFor();
  await look(page, "palette");
  await page.keyboard.press("Escape");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await look(page, "keys");
  await page.keyboard.press("Escape");
  await page.setViewportSize({ width: 320, height: 700 });
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("link", { name: "Wallet" }).first().waitFor();
  await page.screenshot({ path: join(shots, "menu-dark-320.png") });
  await check(page, "the menu of a phone");
  await page.getByRole("link", { name: "Wallet", exact: true }).click();
  await page.getByRole("heading", { name: "Wallet" }).waitFor();
  assert.deepEqual(faults, []);
  nothingFound();
  await context.close();
});

test("what an operator sees looks right, and what a provider does", async () => {
  const pages = [
    ["operator", "/operator"],
    ["operator-members", "/operator?tab=members"],
    ["operator-limits", "/operator?tab=members&member=ada"],
    ["operator-held", "/operator?tab=held"],
    ["operator-audit", "/operator?tab=audit"],
    ["computers", "/providers?tab=mine"],
  ];
  const enter = async (page) => {
    await page.goto(`${server.url}/portal/sign-in`);
    await page.getByRole("button", { name: "Token", exact: true }).click();
    await page.getByRole("textbox", { name: "Token" }).fill(server.token);
    await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
  };
  await inTwo(pages, enter, async (page, name) => {
    if (name !== "computers") return;
    await page.getByRole("row", { name: /ada/ }).first().waitFor();
    await page.getByRole("button", { name: "Create the command" }).click();
    await page.getByText(/piecework provide --controller .* --invite inv_/).waitFor();
  });
});

test("pages of an account that has nothing say what to do", async () => {
  const { page, context, faults } = await opened();
  await signIn(page, "ben");
  for (const [name, path] of [
    ["empty-home", "/"],
    ["empty-functions", "/functions"],
    ["empty-jobs", "/jobs"],
    ["empty-wallet", "/wallet"],
  ]) {
    await page.goto(`${server.url}/portal${path}`);
    await page.locator("h1").first().waitFor();
    await settled(page);
    await look(page, name);
  }
  assert.deepEqual(faults, []);
  nothingFound();
  await context.close();
});
