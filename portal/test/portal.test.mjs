// The portal in a real browser against a real server. Without either, the tests are skipped and say so; in CI that is a failure.

import { test } from "node:test";
import { missing } from "./need.mjs";

const lacking = missing();
if (lacking && process.env.CI) {
  test("what the tests need is here", () => {
    throw new Error(lacking);
  });
} else if (lacking) {
  test("the portal in a browser", { skip: lacking }, () => {});
  console.log(`SKIPPED: ${lacking}`);
} else {
  // All tests are known before the first one runs.
  await import("./all.mjs");
}
