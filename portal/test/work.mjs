// What developers do every day: try, change, compare, go back, check.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasChecker } from "./bundle.mjs";
import { api, opened, person, server, signedIn } from "./server.mjs";

async function typeCode(page, code) {
  await page.locator(".cm-content").click();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.insertText(code);
}

test("code runs before it is saved, and leaves no version", async () => {
  const token = await person("una");
  const { page, context, faults } = await signedIn("una");
  await page.goto(`${server.url}/portal/functions/new`);
  await typeCode(page, "def handler(event, context):\n    return {'tried': event['name']}\n");
  await page.getByRole("button", { name: "Run unsaved code" }).click();
  await page.getByText('"tried": "Ada"').waitFor();
  assert.deepEqual((await api(token, "GET", "/functions")).items, []);
  await api(token, "POST", "/functions", { name: "kept", language: "javascript", code: "export default () => process.env.WORD;\n", env: { WORD: "before" } });
  await page.goto(`${server.url}/portal/functions/kept`);
  // By key, out of the editor: with the variables of the function.
  await typeCode(page, "export default () => `${process.env.WORD}, and after`;\n");
  await page.getByText("not deployed", { exact: true }).waitFor();
  await page.keyboard.press("ControlOrMeta+Enter");
  await page.getByText("before, and after").waitFor();
  assert.equal((await api(token, "GET", "/functions/kept")).version, 1);
  await page.getByRole("link", { name: "Show the job" }).click();
  await page.getByText("none: code that was not deployed").waitFor();
  const [job] = (await api(token, "GET", "/jobs?limit=1")).items;
  await page.getByText(job.code_digest).waitFor();
  await page.getByText(`${job.price_ucr.toLocaleString("en")} ucr`).first().waitFor();
  // What fails says why, and is a job as well.
  await page.goto(`${server.url}/portal/functions/kept`);
  await typeCode(page, "export default () => { throw new Error('not so'); };\n");
  await page.getByRole("button", { name: "Run unsaved code" }).click();
  await page.getByText("function.raised").waitFor();
  await page.getByText("not so").first().waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("a job runs again, with what it was given or something else, in another version or sandbox", async () => {
  const token = await person("rae");
  await api(token, "POST", "/functions", { name: "again", language: "javascript", code: "export default (event) => ['one', event];\n" });
  await api(token, "PUT", "/functions/again", { code: "export default (event) => ['two', event];\n" });
  const { page, context, faults } = await signedIn("rae");
  await page.goto(`${server.url}/portal/functions/again`);
  await page.getByLabel("Input").fill('"mine"');
  await page.getByRole("button", { name: "Run version 2" }).click();
  await page.getByRole("link", { name: "Show the job" }).click();
  await page.getByText("With the input of this job").waitFor();
  const replay = page.getByRole("region", { name: "Run it again" });
  assert.equal(await replay.getByLabel("Input").inputValue(), '"mine"');
  await replay.getByLabel("Version").selectOption("1");
  await replay.getByRole("button", { name: "Run again" }).click();
  await replay.getByText('"one"').waitFor();
  await replay.getByText("piecework run --of again --version 1").waitFor();
  const works = (await api(token, "GET", "/providers")).items[0].backends;
  if (works.includes("jail")) {
    await replay.getByLabel("Version").selectOption("2");
    await replay.getByLabel("Sandbox").selectOption("jail");
    await replay.getByLabel("Input").fill('"other"');
    await replay.getByRole("button", { name: "Run again" }).click();
    await replay.getByText('"two"').waitFor();
    const [job] = (await api(token, "GET", "/jobs?limit=1")).items;
    assert.equal(job.sandbox, "jail");
  }
  assert.deepEqual(faults, []);
  await context.close();
});

test("settings are changed in the page, and of two changes at once both are shown", async () => {
  const token = await person("sam");
  await api(token, "POST", "/functions", { name: "set", language: "javascript", code: "export default () => 1;\n", env: { A: "1", B: "2" }, secrets: { KEY: "hidden" } });
  const { page, context, faults } = await signedIn("sam");
  await page.goto(`${server.url}/portal/functions/set?tab=settings`);
  await page.getByRole("button", { name: "Change settings" }).click();
  await page.getByLabel("Memory in MiB").fill("256");
  await page.getByLabel("Value of A").fill("changed");
  await page.getByRole("button", { name: "Remove B" }).click();
  await page.getByLabel("Public").check();
  await page.getByLabel("Hosts it may reach").fill("api.example.com:443");
  await page.getByRole("button", { name: "Replace KEY" }).click();
  await page.getByLabel("Value of KEY").fill("a new secret");
  await page.getByText("Will change: ").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("button", { name: "Change settings" }).waitFor();
  await page.getByText("256 MiB").waitFor();
  const saved = await api(token, "GET", "/functions/set");
  assert.deepEqual(
    [saved.memory_limit_mb, saved.env, saved.public, saved.egress, saved.secret_names],
    [256, { A: "changed" }, true, ["api.example.com:443"], ["KEY"]],
  );
  // Somebody else is quicker.
  await page.getByRole("button", { name: "Change settings" }).click();
  await page.getByLabel("Memory in MiB").fill("512");
  await api(token, "PUT", "/functions/set", { memory_limit_mb: 64, timeout_ms: 7_000 });
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const row = page.getByRole("row", { name: /^memory/ });
  await row.getByText("512").waitFor();
  await row.getByText("64", { exact: true }).waitFor();
  assert.equal((await api(token, "GET", "/functions/set")).memory_limit_mb, 64);
  await page.getByRole("button", { name: "Save mine over theirs" }).click();
  await page.getByRole("button", { name: "Change settings" }).waitFor();
  const both = await api(token, "GET", "/functions/set");
  assert.deepEqual([both.memory_limit_mb, both.timeout_ms], [512, 7_000], "what only they changed stays");
  // What the server refuses is said at its field or below the form.
  await page.getByRole("button", { name: "Change settings" }).click();
  await page.getByLabel("Sandbox", { exact: true }).fill("no-such-wall");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("sandbox.unknown").waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("two versions are compared, calls are split between them, and one is promoted", async () => {
  const token = await person("vic");
  await api(token, "POST", "/functions", { name: "parts", language: "javascript", code: "// kept\nexport default () => 'old';\n" });
  await api(token, "PUT", "/functions/parts", { code: "// kept\nexport default () => 'new';\n" });
  const { page, context, faults } = await signedIn("vic");
  await page.goto(`${server.url}/portal/functions/parts?tab=versions`);
  await page.getByRole("button", { name: "Compare version 2" }).click();
  await page.locator(".diff .gone", { hasText: "'old'" }).waitFor();
  await page.locator(".diff .added", { hasText: "'new'" }).waitFor();
  await page.locator(".diff .same", { hasText: "// kept" }).waitFor();
  await page.getByRole("button", { name: "Build log of version 2" }).click();
  await page.getByText(/check: loaded in/).waitFor();
  await page.getByLabel("Share in percent").fill("30");
  await page.getByRole("button", { name: "Split", exact: true }).click();
  await page.getByRole("row", { name: /^1 30 %/ }).waitFor();
  await page.getByRole("button", { name: "Promote version 1" }).click();
  await page.getByRole("row", { name: /^1 Live/ }).waitFor();
  const view = await api(token, "GET", "/functions/parts");
  assert.deepEqual([view.version, view.traffic ?? null], [1, null]);
  assert.deepEqual(faults, []);
  await context.close();
});

test("a proof is checked in the page, without the network, and each flipped part is named", { skip: hasChecker ? false : "no checker" }, async () => {
  const token = await person("pru");
  await api(token, "POST", "/functions", { name: "proven", language: "javascript", code: "export default () => 1;\n" });
  const { job_id } = await api(token, "POST", "/execute/proven", { input: null });
  const { page, context, faults } = await signedIn("pru");
  await page.goto(`${server.url}/portal/jobs/${job_id}`);
  await page.getByRole("button", { name: "Check this proof" }).click();
  await page.getByText("The proof holds.").first().waitFor();
  await page.getByText("the peers of the genesis").waitFor();
  const { proof, parts } = await api(token, "GET", `/jobs/${job_id}/proof`);
  const genesis = await (await fetch(`${server.url}/ledger/genesis`)).text();
  await context.setOffline(true);
  const drop = async (name, kind, buffer) => page.getByLabel(name).setInputFiles({ name: kind, mimeType: "application/octet-stream", buffer });
  await drop("Use my genesis file", "genesis.json", Buffer.from(genesis));
  await page.getByText("genesis from genesis.json").waitFor();
  await page.getByText("The proof holds.").first().waitFor();
  const bytes = Buffer.from(proof, "hex");
  const told = new Set();
  for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 24)) {
    const flipped = Buffer.from(bytes);
    flipped[at] ^= 1;
    await drop("Check a saved proof", `at-${at}.proof`, flipped);
    await page.getByText(`at-${at}.proof`).waitFor();
    const alert = page.getByRole("alert").filter({ hasText: "The proof does not hold." });
    await alert.waitFor();
    told.add(await alert.locator("code").innerText());
  }
  for (const code of ["proof.malformed", "proof.other_network", "proof.bad_path", "proof.bad_certificate"]) assert.ok(told.has(code), `${code} is not among ${[...told]}`);
  await drop("Check a saved proof", "good.proof", bytes);
  await page.getByText("The proof holds.").first().waitFor();
  await drop("Use my genesis file", "other.json", Buffer.from(genesis.replace('"created_at_ms":1', '"created_at_ms":2')));
  await page.getByText("proof.other_network").waitFor();
  assert.ok(parts.length > 0);
  await context.setOffline(false);
  // Of balances, too.
  await page.goto(`${server.url}/portal/ledger/accounts/pru`);
  await page.getByRole("button", { name: "Check this proof" }).click();
  await page.getByText("The proof holds.").first().waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("somebody signs in with a key that stays in the browser", async () => {
  const { page, context, faults } = await opened();
  const bodies = [];
  page.on("request", (request) => bodies.push(request.postData() ?? ""));
  const file = join(server.data, "keys/operator.key");
  await page.goto(`${server.url}/portal/sign-in`);
  await page.getByRole("button", { name: "Key", exact: true }).click();
  await page.getByLabel("Name", { exact: true }).fill("operator");
  await page.getByLabel("Key file").setInputFiles({ name: "x", mimeType: "text/plain", buffer: Buffer.from("no key") });
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByText("This is not a key file").waitFor();
  await page.getByLabel("Key file").setInputFiles(file);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
  await page.getByRole("link", { name: "Operator", exact: true }).click();
  await page.getByRole("heading", { name: "Operator" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  // From now on the browser has it, and no script can read it.
  await page.getByRole("button", { name: "Key", exact: true }).click();
  await page.getByText("This browser has the key of this account.").waitFor();
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
  const seed = readFileSync(file, "utf8").trim();
  assert.ok(bodies.every((body) => !body.includes(seed)), "the key is not sent");
  assert.deepEqual(faults, []);
  await context.close();
});

test("an account is registered with a key that the browser makes, signs in with it, and removes it", async () => {
  const invite = await api(server.token, "POST", "/invites", { grant_ucr: 1_000_000, roles: ["developer", "provider"] });
  const { page, context, faults } = await opened();
  await page.goto(`${server.url}/portal/sign-up?invite=${invite.code}`);
  await page.getByRole("button", { name: "Key of this browser" }).click();
  await page.getByLabel("Name", { exact: true }).fill("operator");
  await page.getByRole("form").getByRole("button", { name: "Create an account" }).click();
  await page.getByRole("alert").getByText(/^account\./).waitFor();
  await page.getByLabel("Name", { exact: true }).fill("kit");
  await page.getByLabel("I also want to offer a computer").check();
  await page.getByRole("form").getByRole("button", { name: "Create an account" }).click();
  await page.getByRole("heading", { name: "Hello, kit" }).waitFor();
  const account = await api(server.token, "GET", "/ledger/accounts/kit");
  assert.deepEqual([...account.roles].sort(), ["developer", "provider"]);
  // The browser has the key, of the name that was accepted only, and gives it to no script.
  const kept = await page.evaluate(async () => {
    const wait = (asked) => new Promise((resolve, reject) => ((asked.onsuccess = () => resolve(asked.result)), (asked.onerror = () => reject(asked.error))));
    const store = (await wait(indexedDB.open("piecework"))).transaction("keys").objectStore("keys");
    const [names, key] = await Promise.all([wait(store.getAllKeys()), wait(store.get("kit"))]);
    const told = await crypto.subtle.exportKey("pkcs8", key).then(() => "read", (error) => error.name);
    return { names, told, isExtractable: key.extractable };
  });
  assert.deepEqual(kept, { names: ["kit"], told: "InvalidAccessError", isExtractable: false });
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Key", exact: true }).click();
  await page.getByText("This browser has the key of this account.").waitFor();
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Hello, kit" }).waitFor();
  await page.getByRole("link", { name: "Settings", exact: true }).click();
  await page.getByText("this account").waitFor();
  await page.getByRole("button", { name: "Remove the key of kit" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByText("This browser has no key.").waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("the system page compares sandboxes and routes with the figures of the API", async () => {
  const token = await person("wes");
  await api(token, "POST", "/functions", { name: "walled", language: "javascript", code: "export default () => 1;\n" });
  for (let run = 0; run < 3; run += 1) await api(token, "POST", "/execute/walled", { input: null });
  const { page, context, faults } = await signedIn("wes");
  await page.goto(`${server.url}/portal/system?range=week`);
  const walls = page.getByRole("region", { name: "Sandboxes compared" });
  await walls.getByRole("row").nth(1).waitFor();
  const jobs = (await api(token, "GET", "/jobs?limit=500")).items.filter((job) => job.sandbox && typeof job.cold === "boolean");
  const shown = await walls.locator("tbody tr").evaluateAll((rows) => rows.map((row) => [row.cells[0].textContent, Number(row.cells[1].textContent.replaceAll(",", ""))]));
  assert.ok(jobs.length >= 3);
  const counted = {};
  for (const { sandbox } of jobs) counted[sandbox] = (counted[sandbox] ?? 0) + 1;
  assert.deepEqual(Object.fromEntries(shown), counted);
  const requests = page.getByRole("region", { name: "Requests to this server" });
  await requests.getByRole("row", { name: /^execute / }).waitFor();
  await requests.getByText(/MiB of memory/).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});
