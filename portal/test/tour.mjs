// What people do.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { promisify } from "node:util";
import { hasChecker } from "./bundle.mjs";
import { binary } from "./need.mjs";
import { PASSWORD, api, opened, person, server, signedIn } from "./server.mjs";

const CLICKS_MAX = 10;

/** What a test function's code is replaced by, in the editor. */
async function typeCode(page, code) {
  const editor = page.locator(".cm-content");
  await editor.click();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.insertText(code);
}

test("from an invite to a paid job in a few clicks", async () => {
  const invite = await api(server.token, "POST", "/invites", { grant_ucr: 1_000_000 });
  const { page, context, faults } = await opened();
  let clicks = 0;
  const click = async (locator) => {
    clicks += 1;
    await locator.click();
  };
  await page.goto(`${server.url}/portal/sign-up?invite=${invite.code}`);
  await page.getByLabel("Name", { exact: true }).fill("grace");
  await page.getByLabel("Password").fill(PASSWORD);
  await click(page.getByRole("button", { name: "Create an account" }));
  await page.getByRole("heading", { name: "Hello, grace" }).waitFor();
  await click(page.getByRole("link", { name: "New function" }).first());
  await page.getByLabel("Name", { exact: true }).fill("first");
  await click(page.getByRole("button", { name: "Deploy", exact: true }));
  await page.getByRole("heading", { name: "first", exact: true }).waitFor();
  await click(page.getByRole("button", { name: "Run version 1" }));
  await page.getByText("Hello, Ada!").waitFor();
  await click(page.getByRole("link", { name: "Show the job" }));
  await page.getByRole("heading", { name: "Job of first" }).waitFor();
  // Nobody reloads: the payment shows up by itself.
  await page.getByRole("link", { name: /^paid in block \d+$/ }).waitFor();
  await page.getByText("greets Ada").waitFor();
  await page.getByText(/signed by .+/).first().waitFor();
  assert.ok(clicks <= CLICKS_MAX, `${clicks} clicks`);
  // What is shown is what the API says, to the unit.
  const id = decodeURIComponent(page.url().split("/").pop());
  const session = await fetch(`${server.url}/sessions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name: "grace", password: PASSWORD }),
  });
  const { token } = await session.json();
  const job = await api(token, "GET", `/jobs/${id}`);
  await page.getByText(`${job.price_ucr.toLocaleString("en")} ucr`).first().waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("a new version, and back to the one before", async () => {
  const token = await person("rolf");
  await api(token, "POST", "/functions", { name: "turn", language: "python", code: "def handler(event, context):\n    return 'one'\n" });
  const { page, context, faults } = await signedIn("rolf");
  await page.goto(`${server.url}/portal/functions/turn`);
  await typeCode(page, "def handler(event, context):\n    return 'two'\n");
  await page.getByText("not deployed", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Deploy as a new version" }).click();
  await page.getByRole("button", { name: "Run version 2" }).click();
  await page.getByText('two', { exact: true }).waitFor();
  await page.getByRole("link", { name: "Versions" }).click();
  await page.getByRole("button", { name: "Roll back to version 1" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).click();
  await page.getByRole("row", { name: /^1 Live/ }).waitFor();
  await page.getByRole("link", { name: "Code", exact: true }).click();
  await page.getByRole("button", { name: "Run version 1" }).click();
  await page.getByText('one', { exact: true }).waitFor();
  assert.equal((await api(token, "GET", "/functions/turn")).version, 1);
  assert.deepEqual(faults, []);
  await context.close();
});

test("of two people who change a function at once, the second is told", async () => {
  const token = await person("cora");
  await api(token, "POST", "/functions", { name: "shared", language: "javascript", code: "export default () => 1;\n" });
  const { page, context } = await signedIn("cora");
  await page.goto(`${server.url}/portal/functions/shared`);
  await typeCode(page, "export default () => 'mine';\n");
  await api(token, "PUT", "/functions/shared", { code: "export default () => 'theirs';\n" });
  await page.getByRole("button", { name: "Deploy as a new version" }).click();
  await page.getByRole("button", { name: "Load the new version and discard your changes" }).click();
  await page.locator(".cm-content", { hasText: "theirs" }).waitFor();
  assert.equal((await api(token, "GET", "/functions/shared")).version, 2);
  await context.close();
});

test("what belongs to somebody else is not there, and says what to do", async () => {
  const token = await person("olga");
  await api(token, "POST", "/functions", { name: "secret", language: "javascript", code: "export default () => 1;\n" });
  const job = (await api(token, "POST", "/execute/secret", { input: null })).job_id;
  const { id } = await api(token, "GET", "/functions/secret");
  await person("pete");
  const { page, context, faults } = await signedIn("pete");
  for (const [path, code] of [
    [`/functions/${id}`, "function.not_found"],
    ["/functions/secret", "function.not_found"],
    [`/jobs/${job}`, "job.not_found"],
    ["/ledger/blocks/999999999", "block.not_found"],
  ]) {
    await page.goto(`${server.url}/portal${path}`);
    await page.getByText(code).first().waitFor();
    await page.getByText("This is not there").first().waitFor();
    await page.getByRole("link", { name: "To the home page" }).first().waitFor();
  }
  await page.goto(`${server.url}/portal/no/such/page`);
  await page.getByRole("heading", { name: "There is no such page" }).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("a wrong password is refused in words, and a failing function shows its stack", async () => {
  const token = await person("wilma");
  await api(token, "POST", "/functions", { name: "breaks", language: "python", code: "def handler(event, context):\n    raise ValueError('no such luck')\n" });
  const { page, context } = await opened();
  await page.goto(`${server.url}/portal/functions/breaks`);
  await page.getByLabel("Name", { exact: true }).fill("wilma");
  await page.getByRole("textbox", { name: "Password" }).fill("not the password");
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByText("auth.bad_credentials").waitFor();
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  // Where the person wanted to go.
  await page.getByRole("button", { name: "Run version 1" }).click();
  await page.getByText("function.raised").waitFor();
  await page.getByText("no such luck").first().waitFor();
  await page.getByLabel("Input").fill("{not json");
  await page.getByRole("button", { name: "Run version 1" }).click();
  await page.getByText("The input is not JSON").waitFor();
  await context.close();
});

test("from the invite to the proof, everything works by keyboard alone, and shows where it is", async () => {
  const invite = await api(server.token, "POST", "/invites", { grant_ucr: 1_000_000 });
  const { page, context, faults } = await opened();
  const { keyboard } = page;
  const reach = async (locator) => {
    for (let tries = 0; tries < 80; tries += 1) {
      if (await locator.evaluate((element) => element === document.activeElement)) return;
      await keyboard.press("Tab");
      // What has the focus has a frame; the editor frames itself a moment later.
      await page.waitForFunction(() => {
        const at = document.activeElement.shadowRoot?.activeElement ?? document.activeElement;
        const framed = [at, at.closest("label"), at.closest(".cm-editor")].map((one) => one && getComputedStyle(one));
        return at === document.body || framed.some((style) => style && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
      });
    }
    throw new Error("Tab does not lead there");
  };
  await page.goto(`${server.url}/portal/sign-up?invite=${invite.code}`);
  await page.getByLabel("Name", { exact: true }).waitFor();
  await reach(page.getByLabel("Name", { exact: true }));
  await keyboard.type("kay");
  await keyboard.press("Tab");
  await keyboard.type(PASSWORD);
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "Hello, kay" }).waitFor();
  // Two strokes, a palette, the list of keys.
  await keyboard.press("?");
  await page.getByRole("dialog").getByText("Find anything").waitFor();
  await keyboard.press("Escape");
  await keyboard.press("g");
  await keyboard.press("j");
  await page.getByRole("heading", { name: "Jobs", exact: true }).waitFor();
  await keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "job-function");
  // While somebody types, letters are letters.
  await keyboard.type("gh?");
  assert.equal(await page.locator("#job-function").inputValue(), "gh?");
  await keyboard.press("ControlOrMeta+k");
  await keyboard.type("new fun");
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "New function" }).waitFor();
  await reach(page.getByLabel("Name", { exact: true }));
  await keyboard.type("by-keys");
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "by-keys" }).waitFor();
  await reach(page.getByLabel("Input"));
  await keyboard.press("ControlOrMeta+Enter");
  await page.getByText("Hello, Ada!").waitFor();
  await reach(page.getByRole("link", { name: "Show the job" }));
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "Job of by-keys" }).waitFor();
  // Whoever cannot see the page is at its title.
  assert.equal(await page.evaluate(() => document.activeElement.id), "title");
  await page.getByRole("link", { name: /^paid in block/ }).waitFor();
  if (hasChecker) {
    await reach(page.getByRole("button", { name: "Check this proof" }));
    await keyboard.press("Enter");
    await page.getByText("The proof holds.").first().waitFor();
  }
  await page.goBack();
  await page.getByRole("heading", { name: "by-keys", exact: true }).waitFor();
  await page.getByLabel("Input").waitFor();
  // Out of the editor again, by Tab.
  await reach(page.locator(".editor"));
  await reach(page.getByLabel("Input"));
  assert.deepEqual(faults, []);
  await context.close();
});

test("credits that were transferred are in both statements, and a file has them as the command line does", async () => {
  const token = await person("tara", 5_000_000);
  const memo = '=HYPERLINK("http://a.example"), for lunch';
  const tom = await person("tom", 0);
  const { page, context, faults } = await signedIn("tara");
  await page.goto(`${server.url}/portal/wallet?tab=transfer`);
  await page.getByLabel("To", { exact: true }).fill("tom");
  await page.getByLabel("Amount").fill("1.5cr");
  await page.getByLabel("Memo").fill(memo);
  await page.getByRole("button", { name: "Transfer" }).click();
  await page.getByRole("cell", { name: "-1,500,000 ucr" }).waitFor();
  await page.getByRole("cell", { name: memo }).waitFor();
  // Final, in which block, and proven in the page.
  await page.getByRole("link", { name: /^final in block \d+$/ }).waitFor();
  if (hasChecker) {
    await page.getByRole("button", { name: "Check this proof" }).click();
    await page.getByText("The proof holds.").first().waitFor();
    await page.getByText("3,500,000 ucr").nth(1).waitFor();
  }
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save as CSV" }).click()]);
  assert.match(file.suggestedFilename(), /^statement-tara-\d{4}-\d\d-\d\d\.csv$/);
  const saved = readFileSync(await file.path(), "utf8");
  assert.ok(saved.includes(`"'=HYPERLINK(""http://a.example""), for lunch"`), saved);
  const { stdout } = await promisify(execFile)(binary, ["statement", "--csv"], { env: { ...process.env, PIECEWORK_URL: server.url, PIECEWORK_TOKEN: token } });
  assert.equal(saved, stdout.replaceAll("\n", "\r\n"));
  assert.equal((await api(token, "GET", "/account")).posted_ucr, 3_500_000);
  // One that is not final in time is asked for again with the next block, and moves once.
  await page.route("**/portal/api/transfers", async (route) => {
    await route.fetch();
    await route.fulfill({ status: 503, contentType: "application/json", body: '{"error":{"code":"transfer.queued","message":"it is queued"}}' });
  }, { times: 1 });
  await page.getByRole("link", { name: "Transfer", exact: true }).click();
  await page.getByLabel("To", { exact: true }).fill("tom");
  await page.getByLabel("Amount").fill("7");
  await page.getByRole("button", { name: "Transfer" }).click();
  await page.getByText("Queued, not final yet.").waitFor();
  await api(tom, "POST", "/transfers", { to: "operator", amount_ucr: 1 });
  await page.getByText("Transferred 7 ucr to tom.").first().waitFor();
  assert.equal((await api(token, "GET", "/account")).posted_ucr, 3_499_993);
  assert.deepEqual(faults, []);
  await context.close();
});

test("a lost connection is said, and comes back by itself", async () => {
  const token = await person("lena");
  const { page, context } = await signedIn("lena");
  await page.goto(`${server.url}/portal/jobs`);
  await page.getByText("No jobs yet").waitFor();
  await page.getByText("Live", { exact: true }).waitFor({ state: "attached" });
  await context.setOffline(true);
  // A stream that was open stays so for the browser; what is new is refused.
  await page.evaluate(() => dispatchEvent(new Event("offline")));
  await page.getByText("The connection is lost.").waitFor();
  await api(token, "POST", "/functions", { name: "later", language: "javascript", code: "export default () => 1;\n" });
  await api(token, "POST", "/execute/later", { input: null });
  await context.setOffline(false);
  await page.getByText("The connection is lost.").waitFor({ state: "detached" });
  await page.getByRole("link", { name: /^later/ }).waitFor();
  await context.close();
});

test("hostile names, logs and outputs are only text", async () => {
  const token = await person("hana");
  const hostile = `<img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>\u202Egnp.exe\u200B`;
  const code = `export default () => { console.log(${JSON.stringify(hostile)}); return ${JSON.stringify(hostile)}; };\n`;
  await api(token, "POST", "/functions", { name: "hostile", language: "javascript", code });
  const { job_id } = await api(token, "POST", "/execute/hostile", { input: null });
  const { page, context, faults } = await signedIn("hana");
  for (const path of [`/jobs/${job_id}`, "/functions/hostile?tab=logs"]) {
    await page.goto(`${server.url}/portal${path}`);
    await page.getByText("\\u202egnp.exe\\u200b").first().waitFor();
    assert.equal(await page.locator("main img").count(), 0);
    assert.doesNotMatch(await page.title(), /pwned/);
  }
  assert.deepEqual(faults, []);
  await context.close();
});
