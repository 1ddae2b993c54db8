// Answers that are not as they should be: each field of each answer is left out, null, or of another type, and each object has fields
// that nobody knows. One panel may fail; the rest of the page shows what it showed before, and the next page works.

import assert from "node:assert/strict";
import { test } from "node:test";
import { api, opened, server } from "./server.mjs";

/** With `PORTAL_FUZZ=all`, each field is spoiled in every way; otherwise some of every other answer are, in one way, and others on the next page. */
const IS_ALL = process.env.PORTAL_FUZZ === "all";

/** Runs in the page, before its own scripts: remembers true answers, gives them again, and spoils one field of one of them. */
function spoil() {
  const real = globalThis.fetch;
  const answers = new Map();
  const fuzz = { seen: new Set(), pending: 0, faults: [], change: undefined, events: undefined };
  globalThis.fuzz = fuzz;
  addEventListener("error", (event) => fuzz.faults.push(String(event.message)));
  addEventListener("unhandledrejection", (event) => fuzz.faults.push(String(event.reason)));
  /** Metrics are asked for from a time that moves. */
  const bad = sessionStorage.getItem("session");
  if (bad) fuzz.change = { key: "/portal/session", with: (status, text) => ({ status, text: bad === "extended" ? JSON.stringify(extended(JSON.parse(text))) : bad.startsWith("{}") ? spoiled(text, ...JSON.parse(bad.slice(2))) : bad }) };
  const keyOf = (url) => (url.searchParams.delete("from"), url.pathname.replace("/portal/api", "") + url.search);
  const stream = () => {
    const encoder = new TextEncoder();
    let pulse;
    const body = new ReadableStream({
      start: (control) => {
        fuzz.events = (text) => control.enqueue(encoder.encode(text));
        pulse = setInterval(() => fuzz.events(":\n\n"), 500);
      },
      cancel: () => clearInterval(pulse),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  globalThis.fetch = async (address, init) => {
    const url = new URL(address, location.href);
    if (url.pathname === "/portal/api/events") return stream();
    if ((init?.method ?? "GET") !== "GET" || !/^\/portal\/(api\/|session$)/.test(url.pathname)) return real(address, init);
    const key = keyOf(url);
    fuzz.seen.add(key);
    fuzz.pending += 1;
    try {
      if (!answers.has(key)) {
        const answer = await real(address, { ...init, signal: undefined });
        answers.set(key, { status: answer.status, type: answer.headers.get("content-type"), etag: answer.headers.get("etag"), text: await answer.text() });
      }
      const { status, type, etag, text } = answers.get(key);
      const told = fuzz.change?.key === key ? fuzz.change.with(status, text) : { status, text };
      return new Response(told.text, { status: told.status, headers: { "content-type": type ?? "text/plain", ...(etag ? { etag } : {}) } });
    } finally {
      fuzz.pending -= 1;
    }
  };

  // A timer waits for 4 ms; this only lets everything else go first.
  const channel = new MessageChannel();
  const turn = () => new Promise((resolve) => ((channel.port1.onmessage = () => resolve()), channel.port2.postMessage(0)));
  async function quiet() {
    for (let calm = 0, began = performance.now(); calm < 4; ) {
      if (performance.now() - began > 20_000) return "it does not come to rest";
      await (fuzz.pending > 0 || calm === 0 ? new Promise((resolve) => setTimeout(resolve)) : turn());
      calm = fuzz.pending === 0 && !document.querySelector("[aria-busy=true]") ? calm + 1 : 0;
    }
    return undefined;
  }
  /** What the panels show, by their names; without times, which go on. */
  function panels() {
    const shown = {};
    for (const panel of document.querySelectorAll("#main section, #main article, #main .chart")) {
      if (panel.querySelector("section, article, .chart")) continue;
      const copy = panel.cloneNode(true);
      for (const part of copy.querySelectorAll("time, .plot, .facts-line, .cm-editor, .notice.aged")) part.remove();
      const named = panel.getAttribute("aria-labelledby");
      const name = (named ? document.getElementById(named)?.textContent : panel.getAttribute("aria-label")) ?? panel.querySelector("h2, .name")?.textContent;
      shown[name] = copy.textContent.replaceAll(/\s+/g, " ");
    }
    return shown;
  }
  async function visit(path) {
    for (const one of ["/portal/nothing", path]) {
      history.pushState(null, "", one);
      dispatchEvent(new PopStateEvent("popstate"));
      await turn();
    }
    const restless = await quiet();
    const title = document.querySelector("#main h1")?.textContent ?? "";
    const links = document.querySelectorAll("nav[aria-label=Pages] a").length;
    return { restless, title, links, panels: panels(), faults: fuzz.faults.splice(0) };
  }

  /** Every place of a field, of an array's first item for all of its items. */
  function fieldsOf(value, path = []) {
    if (path.length > 7 || value === null || typeof value !== "object") return [];
    const entries = Array.isArray(value) ? value.slice(0, 1).map((item) => [0, item]) : Object.entries(value);
    return entries.flatMap(([name, item]) => [[...path, name], ...fieldsOf(item, [...path, name])]);
  }
  const other = (value) => (typeof value === "string" ? 7 : typeof value === "number" ? "seven" : typeof value === "boolean" ? "perhaps" : Array.isArray(value) ? 5 : { none: [] });
  const ways = {
    missing: (holder, name) => (Array.isArray(holder) ? holder.splice(name, 1) : delete holder[name]),
    null: (holder, name) => (holder[name] = null),
    other: (holder, name) => (holder[name] = other(holder[name])),
    text: (holder, name) => (holder[name] = "unheard-of"),
  };
  function spoiled(text, path, way) {
    const value = JSON.parse(text);
    const holder = path.slice(0, -1).reduce((at, name) => at[name], value);
    ways[way](holder, path.at(-1));
    return JSON.stringify(value);
  }
  /** What functions and the ledger say is shown as it is. */
  const FREE = ["output", "body", "detail", "env", "placement"];
  function extended(value) {
    if (Array.isArray(value)) return value.map(extended);
    if (value === null || typeof value !== "object") return value;
    return { ...Object.fromEntries(Object.entries(value).map(([name, item]) => [name, FREE.includes(name) ? item : extended(item)])), unheard_of: { of: [1, "two"] } };
  }
  function changesOf(key, kinds, salt) {
    const { text } = answers.get(key);
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      return [];
    }
    const all = Object.keys(ways);
    const fields = fieldsOf(value).flatMap((path, nth) =>
      kinds !== "all" && (nth + salt) % 12 !== 0 ? [] :
      (kinds === "all" ? all : [all[(nth + salt) % all.length]]).map((way) => ({ what: `${path.join(".")} ${way}`, text: () => spoiled(text, path, way) })),
    );
    const wholes = ["null", "[]", "{}", '"text"', "<html>"].map((whole) => ({ what: whole, text: () => whole }));
    return [...fields, ...(kinds === "all" ? wholes : wholes.filter((_, nth) => nth === salt % (2 * wholes.length))), ...(kinds === "all" || salt % 2 === 0 ? [{ what: "unknown fields", text: () => JSON.stringify(extended(value)), isHarmless: true }] : [])];
  }

  /** All changes of all answers of a page, one after the other. */
  fuzz.run = async (path, kinds, salt) => {
    fuzz.seen.clear();
    fuzz.change = undefined;
    await visit(path);
    const plain = await visit(path);
    const found = [];
    let count = 0;
    const keys = [...fuzz.seen].filter((one) => one !== "/portal/session" && answers.has(one));
    for (const key of keys.filter((_, nth) => kinds === "all" || keys.length === 1 || (nth + salt) % 2 === 0)) {
      fuzz.change = { key, with: () => ({ status: 500, text: '{"error":{"code":"internal","message":"spoiled"}}' }) };
      const failing = await visit(path);
      const others = Object.keys(plain.panels).filter((name) => failing.panels[name] === plain.panels[name]);
      const tries = [{ what: "status 500", seen: failing }, ...changesOf(key, kinds, salt)];
      for (const one of tries) {
        count += 1;
        if (!one.seen) fuzz.change = { key, with: (status) => ({ status, text: one.text() }) };
        const seen = one.seen ?? (await visit(path));
        const wrong = [...seen.faults, seen.restless];
        if (seen.title === "" || seen.title === "This part of the page failed.") wrong.push("the whole page is gone");
        if (seen.links !== plain.links) wrong.push("the menu is gone");
        for (const name of one.isHarmless ? Object.keys(plain.panels) : others) if (seen.panels[name] !== plain.panels[name]) wrong.push(`${name}: ${seen.panels[name]}`);
        found.push(...wrong.filter(Boolean).map((fault) => `${path}, ${key}, ${one.what}: ${fault.slice(0, 300)}`));
      }
    }
    fuzz.change = undefined;
    const again = await visit(path);
    if (JSON.stringify(again.panels) !== JSON.stringify(plain.panels)) found.push(`${path}: it is not as before: ${JSON.stringify(again.panels).slice(0, 500)}`);
    return { found, count, panels: Object.keys(plain.panels), faults: plain.faults };
  };
}

async function enter(page) {
  await page.goto(`${server.url}/portal/sign-in`);
  await page.getByRole("button", { name: "Token", exact: true }).click();
  await page.getByRole("textbox", { name: "Token" }).fill(server.token);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
}

test("an answer with a bad field fails its panel and nothing else", async () => {
  const ann = server.token;
  const code = "export default (event) => { console.log('it ran'); return event; };\n";
  await api(ann, "POST", "/functions", { name: "fuzzed", language: "javascript", code, env: { A: "b" } });
  await api(ann, "PUT", "/functions/fuzzed", { code: `${code}// two\n` });
  await api(ann, "PUT", "/functions/fuzzed/traffic", { weights: { 1: 10 } });
  const { id } = await api(ann, "GET", "/functions/fuzzed");
  const { job_id } = await api(ann, "POST", "/execute/fuzzed", { input: { n: 1 } });
  for (let tries = 0; !(await api(ann, "GET", `/jobs/${job_id}`)).paid; tries += 1) {
    assert.ok(tries < 300, "it is paid");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const height = (await api(ann, "GET", `/jobs/${job_id}`)).paid_height;
  const transaction = (await api(ann, "GET", `/ledger/blocks/${height}`)).items[0].id;
  const pages = [
    "/", "/functions", `/functions/${id}`, `/functions/${id}?tab=call`, `/functions/${id}?tab=versions&from=1&to=2`, `/functions/${id}?tab=versions&log=2`,
    `/functions/${id}?tab=metrics`, `/functions/${id}?tab=logs`, `/functions/${id}?tab=settings`, `/functions/${id}?tab=settings&edit=1`, "/jobs", `/jobs/${job_id}`,
    "/providers", "/providers?tab=mine", "/wallet", "/ledger", "/ledger?tab=transactions", "/ledger?tab=peers", "/ledger?tab=offers", `/ledger/blocks/${height}`,
    `/ledger/transactions/${transaction}`, "/ledger/accounts/provider", "/settings", "/system", "/operator", "/operator?tab=members", "/operator?tab=members&member=provider", "/operator?tab=held", "/operator?tab=audit",
  ];
  const left = pages.map((path, nth) => [path, nth]);
  const found = [];
  let count = 0;
  const { page, context } = await opened();
  await page.addInitScript(spoil);
  await enter(page);
  for (const next of left) {
    const began = Date.now();
    const told = await page.evaluate(([path, kinds, salt]) => globalThis.fuzz.run(path, kinds, salt), [`/portal${next[0]}`, IS_ALL ? "all" : "one", next[1]]);
    if (process.env.PORTAL_FUZZ) console.log(`${next[0]}: ${told.count} changes, ${told.found.length} faults, ${Date.now() - began} ms, ${told.panels.join(" | ")}`);
    assert.deepEqual(told.faults, [], next[0]);
    count += told.count;
    found.push(...told.found);
  }
  await context.close();
  console.log(`${count} spoiled answers`);
  assert.equal(found.length, 0, `${found.length} faults:\n${found.slice(0, 60).join("\n")}`);
  assert.ok(count > 80, `${count}`);
});

test("neither a bad session nor a bad event leaves a blank page", async () => {
  const { page, context } = await opened();
  await page.addInitScript(spoil);
  await enter(page);
  for (const bad of ["null", "[]", "<html>", '{}[["account"], "missing"]', '{}[["account"], "text"]', '{}[["account", "name"], "null"]', '{}[["scopes"], "null"]', '{}[["account", "roles"], "other"]', '{}[["operator"], "missing"]', "extended"]) {
    await page.evaluate((of) => sessionStorage.setItem("session", of), bad);
    await page.reload();
    await page.waitForFunction(() => document.querySelector("h1")?.textContent && document.querySelector("main")?.textContent.length > 20);
    assert.deepEqual(await page.evaluate(() => globalThis.fuzz.faults), [], bad);
  }
  await page.evaluate(() => sessionStorage.removeItem("session"));
  await page.reload();
  await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
  await page.getByText("Live", { exact: true }).waitFor({ state: "attached" });
  const events = ["null", "7", "[]", "{}", '{"kind":null}', '{"kind":"job"}', '{"kind":"job","body":null}', '{"kind":"job","body":{"id":7}}', '{"kind":"unheard-of","body":{},"more":1}', "{not json", '{"kind":"__proto__","body":{"id":"constructor"}}'];
  await page.evaluate((all) => all.forEach((one) => globalThis.fuzz.events(`event: x\nid: 1\ndata: ${one}\n\n`)), events);
  // What comes after them is heard.
  await page.evaluate(() => (globalThis.fuzz.seen.clear(), globalThis.fuzz.events('data: {"kind":"job","at":"","body":{"id":"x"}}\n\n')));
  await page.waitForFunction(() => globalThis.fuzz.seen.has("/jobs?limit=8"));
  assert.equal(await page.getByText("The connection is lost.").count(), 0);
  assert.deepEqual(await page.evaluate(() => globalThis.fuzz.faults), []);
  await context.close();
});
