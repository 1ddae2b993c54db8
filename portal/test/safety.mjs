// What a function's page tries, in the browser of somebody who is signed in.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { PASSWORD, api, opened, person, server } from "./server.mjs";

const port = new URL(server.url).port;
/** The same server by a name, below which functions have their own origins: for a browser, they are of one site. */
const named = `http://localhost:${port}`;

/** Runs in the function's page; says what came of each try. */
const attack = `
const portal = new URL(location.search.slice(1) || location.origin);
const told = {};
const tries = {
  cookie: async () => document.cookie,
  toss: async () => {
    for (const domain of ["", "; domain=localhost", "; domain=" + portal.hostname]) {
      document.cookie = "piecework=pw_evil; path=/portal/" + domain;
      document.cookie = "__Host-piecework=pw_evil; path=/; secure" + domain;
    }
    return document.cookie;
  },
  session: async () => (await fetch(new URL("/portal/session", portal), { credentials: "include" })).text(),
  asPortal: async () => (await fetch(new URL("/portal/api/account", portal), { credentials: "include", headers: { "X-Piecework-Portal": "1" } })).text(),
  api: async () => (await fetch(new URL("/account", portal), { credentials: "include" })).text(),
  blind: async () => (await fetch(new URL("/portal/api/tokens", portal), { method: "POST", mode: "no-cors", credentials: "include", body: '{"label": "stolen", "scopes": ["admin"]}' })).type,
  blindRun: async () => (await fetch(new URL("/portal/session", portal), { method: "POST", mode: "no-cors", credentials: "include", body: '{"token": "pw_evil"}' })).type,
  beacon: async () => String(navigator.sendBeacon(new URL("/portal/api/tokens", portal), '{"label": "stolen", "scopes": ["admin"]}')),
  worker: async () => String(await navigator.serviceWorker.register(location.pathname + "sw.js", { scope: "/" })),
  workerHere: async () => String(await navigator.serviceWorker.register("sw.js")),
  storage: async () => localStorage.getItem("piecework.theme") ?? "null",
  frame: async () => {
    const frame = document.createElement("iframe");
    frame.src = new URL("/portal/", portal);
    document.body.append(frame);
    await new Promise((resolve) => { frame.onload = resolve; setTimeout(resolve, 3000); });
    return frame.contentDocument ? frame.contentDocument.body.innerText : "closed";
  },
  script: async () => new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = new URL("/portal/api/account", portal);
    script.onload = () => resolve("loaded");
    script.onerror = () => resolve("refused");
    document.head.append(script);
  }),
};
(async () => {
  for (const [name, attempt] of Object.entries(tries)) {
    try { told[name] = await attempt(); } catch (error) { told[name] = "blocked: " + error.name; }
  }
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: new URL("/portal/api/tokens", portal), enctype: "text/plain", target: "away" });
  form.innerHTML = '<iframe name="away"></iframe><input name=\\'{"label": "stolen", "scopes": ["admin"], "x":"\\' value=\\'"}\\'>';
  document.body.append(form);
  form.submit();
  setTimeout(() => { document.body.dataset.told = JSON.stringify(told); }, 500);
})();
`;
const code = `const page = ${JSON.stringify(`<!doctype html><title>evil</title><body>evil<script>${attack}</script>`)};
export default (event) => {
  if (event.path?.endsWith("sw.js")) return { status: 200, headers: { "content-type": "text/javascript" }, body: "self.onfetch = () => {}" };
  return {
    status: 200,
    headers: {
      "content-type": "text/html",
      "set-cookie": "piecework=pw_evil; Path=/portal/",
      "clear-site-data": '"cookies", "storage"',
      "service-worker-allowed": "/",
    },
    body: page,
  };
};
`;

before(async () => {
  const mallory = await person("mallory");
  await api(mallory, "POST", "/functions", { name: "evil", language: "javascript", code, public: true });
});

for (const [where, base, page] of [
  ["at the plain path", server.url, `${server.url}/fn/mallory/evil/`],
  ["at its own origin, of the same site", named, `http://evil.mallory.fn.localhost:${port}/`],
]) {
  test(`a function's page ${where} gets nothing of a session, and nothing done`, async () => {
    const victim = where === "at the plain path" ? "vera" : "vito";
    const token = await person(victim);
    const tokens = async () => (await api(token, "GET", "/tokens")).items.map((one) => one.label).sort();
    const { page: tab, context } = await opened();
    await tab.goto(`${base}/portal/`);
    await tab.getByLabel("Name", { exact: true }).fill(victim);
    await tab.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
    await tab.getByRole("form").getByRole("button", { name: "Sign in" }).click();
    await tab.getByRole("heading", { name: `Hello, ${victim}` }).waitFor();
    assert.equal(await tab.evaluate(() => document.cookie), "", "no script sees the cookie");
    const before = { tokens: await tokens(), cookies: await context.cookies(`${base}/portal/`) };
    assert.equal(before.cookies.length, 1);
    assert.ok(before.cookies[0].httpOnly && before.cookies[0].sameSite === "Strict");
    const other = await context.newPage();
    await other.goto(`${page}?${base}`);
    await other.waitForFunction(() => document.body.dataset.told, undefined, { timeout: 30_000 });
    const told = JSON.parse(await other.evaluate(() => document.body.dataset.told));
    const all = JSON.stringify(told);
    assert.ok(!all.includes(victim) && !/pw_[0-9a-f]{64}/.test(all), all);
    for (const name of ["session", "asPortal", "api"]) assert.match(told[name], /^blocked/, `${name}: ${told[name]}`);
    // At its own origin a function may have one, for itself alone.
    if (base === new URL(page).origin) assert.match(told.worker, /^blocked/, told.worker);
    assert.ok(["closed", "blocked: SecurityError"].includes(told.frame) || told.frame === "", told.frame);
    assert.equal(told.script, "refused");
    for (const frame of other.frames().slice(1)) {
      const text = await frame.evaluate(() => document.body?.innerText ?? "").catch(() => "");
      assert.ok(!text.includes("Piecework") && !text.includes(victim), text);
    }
    const workers = context.serviceWorkers().map((worker) => worker.url());
    assert.ok(workers.every((url) => !url.startsWith(base)), `${workers}`);
    // Nothing was done in the victim's name, and the session goes on.
    assert.deepEqual(await tokens(), before.tokens);
    const kept = await context.cookies(`${base}/portal/`);
    assert.deepEqual(kept.map((cookie) => cookie.value), before.cookies.map((cookie) => cookie.value));
    await tab.reload();
    await tab.getByRole("heading", { name: `Hello, ${victim}` }).waitFor();
    await context.close();
  });
}

test("the portal's page refuses frames and foreign scripts, and signing out ends the session", async () => {
  await person("sybil");
  const { page, context } = await opened();
  const response = await page.goto(`${server.url}/portal/`);
  const policy = response.headers()["content-security-policy"];
  assert.ok(!policy.includes("unsafe") && policy.includes("frame-ancestors 'none'") && policy.includes("/portal/assets/"), policy);
  await page.getByLabel("Name", { exact: true }).fill("sybil");
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Hello, sybil" }).waitFor();
  // A script of a function's path is not one of the portal's, though the host is the same.
  const loaded = await page.evaluate(
    (source) =>
      new Promise((resolve) => {
        const script = document.createElement("script");
        try {
          script.src = source;
        } catch {
          return resolve("refused");
        }
        script.onload = () => resolve("loaded");
        script.onerror = () => resolve("refused");
        document.head.append(script);
      }),
    `${server.url}/fn/mallory/evil/sw.js`,
  );
  assert.equal(loaded, "refused");
  const [cookie] = await context.cookies(`${server.url}/portal/`);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in", exact: true }).last().waitFor();
  const again = await fetch(`${server.url}/portal/api/account`, {
    headers: { Cookie: `${cookie.name}=${cookie.value}`, "X-Piecework-Portal": "1" },
  });
  assert.equal((await again.json()).error.code, "auth.bad_token");
  assert.deepEqual(await context.cookies(`${server.url}/portal/`), []);
  await context.close();
});
