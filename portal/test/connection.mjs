// A server that is silent, and one that comes and goes.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { test } from "node:test";
import { PASSWORD, api, opened, person, server, up } from "./server.mjs";

/** Between browser and server: passes on what comes until it is told to be silent, as a network is that is gone. */
async function between(port) {
  let isSilent = false;
  const sockets = new Set();
  const proxy = createServer((from) => {
    const to = connect(port, "127.0.0.1");
    for (const [one, other] of [[from, to], [to, from]]) {
      sockets.add(one);
      one.on("data", (part) => isSilent || other.write(part));
      one.on("close", () => (sockets.delete(one), other.destroy()));
      one.on("error", () => {});
    }
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const close = () => (sockets.forEach((socket) => socket.destroy()), proxy.close());
  return { url: `http://127.0.0.1:${proxy.address().port}`, silence: (is) => ((isSilent = is), is || sockets.forEach((socket) => socket.destroy())), close };
}

async function enter(page, url, name) {
  await page.goto(`${url}/portal/sign-in`);
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: `Hello, ${name}` }).waitFor();
}

test("a server that falls silent is said to be lost, and what is shown to be old", async () => {
  await person("hal");
  const proxy = await between(new URL(server.url).port);
  const { page, context } = await opened({}, proxy.url);
  await page.clock.install();
  await enter(page, proxy.url, "hal");
  await page.getByText("Live", { exact: true }).waitFor({ state: "attached" });
  // From here on, time is what the test lets pass.
  await page.clock.pauseAt(Date.now() + 500);
  proxy.silence(true);
  // No connection has ended: only the silence says it, within three seconds.
  await page.clock.runFor(3_000);
  await page.getByText("The connection is lost.").waitFor();
  await page.clock.runFor(9_000);
  await page.getByText(/What you see is 1[0-3] s old/).waitFor();
  assert.match(await page.locator(".page").evaluate((element) => getComputedStyle(element).filter), /grayscale/);
  proxy.silence(false);
  await page.clock.resume();
  await page.getByText("The connection is lost.").waitFor({ state: "detached" });
  await context.close();
  proxy.close();
});

/** In CI a few, as each takes a second or two. */
const RESTARTS = Number(process.env.PORTAL_RESTARTS ?? 5);

test("over restarts of the server nothing is missing and nothing is double", async () => {
  let own = await up();
  const { url, data, token } = own;
  const ask = (method, path, body) =>
    fetch(url + path, { method, headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }, ...(body ? { body: JSON.stringify(body) } : {}) }).then((answer) => answer.json());
  const { page, context } = await opened({}, url);
  try {
    await ask("POST", "/functions", { name: "count", language: "javascript", code: "export default (event) => event;\n" });
    await page.goto(`${url}/portal/sign-in`);
    await page.getByRole("button", { name: "Token", exact: true }).click();
    await page.getByRole("textbox", { name: "Token" }).fill(token);
    await page.getByRole("form").getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Hello, operator" }).waitFor();
    await page.goto(`${url}/portal/jobs`);
    await page.getByText("No jobs yet").waitFor();
    const jobs = [];
    for (let restart = 0; restart < RESTARTS; restart += 1) {
      await own.end(restart % 2 === 0 ? "SIGKILL" : "SIGTERM");
      await page.getByText("The connection is lost.").waitFor();
      own = await up(data, new URL(url).host);
      // Before the page is back, or after it: it is all the same.
      jobs.push((await ask("POST", "/execute/count", { input: restart })).job_id);
      await page.getByText("The connection is lost.").waitFor({ state: "detached" });
      jobs.push((await ask("POST", "/execute/count", { input: restart })).job_id);
      await page.locator(`a[href$="${jobs.at(-1)}"]`).waitFor();
      const shown = await page.locator("tbody a[href*='/jobs/']").evaluateAll((links) => links.map((link) => link.getAttribute("href").split("/").pop()));
      assert.deepEqual(shown, jobs.toReversed());
    }
  } finally {
    await context.close();
    await own.stop();
  }
});
