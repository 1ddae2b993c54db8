// What the tables of expressions share: how a value is shown, and what a table does when it is run.

import { writeFileSync } from "node:fs";

const ZONE = (process.env.TZ ??= "UTC");

// Runs in both. Errors by their names: their messages are each engine's own.
const SHOW = String.raw`
function show(value, seen = []) {
  if (value === null || typeof value === "boolean" || value === undefined) return String(value);
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  if (typeof value === "bigint") return value + "n";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "symbol") return String(value);
  if (typeof value === "function") return "function";
  if (seen.includes(value)) return "circular";
  const inner = [...seen, value];
  if (value instanceof Error) return "error " + value.name + (value.code ? " " + value.code : "");
  if (value instanceof Date) return "date " + value.getTime();
  if (value instanceof RegExp) return "regexp " + value;
  if (ArrayBuffer.isView(value)) return value.constructor.name + " " + Array.from(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (value instanceof ArrayBuffer) return "buffer " + Array.from(new Uint8Array(value));
  if (value instanceof Map || value instanceof Set) return value.constructor.name + " " + show([...value], inner);
  if (Array.isArray(value)) return "[" + Array.from(value, (item) => show(item, inner)).join(", ") + "]";
  return "{" + Object.keys(value).map((key) => JSON.stringify(key) + ": " + show(value[key], inner)).join(", ") + "}";
}
async function evaluated(expression) {
  try {
    return show(await (0, eval)("(async () => (" + expression + "))()"));
  } catch (error) {
    return "throws " + (error instanceof Error ? error.name + (error.code ? " " + error.code : "") : typeof error);
  }
}
`;

// Prints each expression with what this interpreter gives; with an argument writes the function there that gives the same elsewhere.
export async function run(all) {
  const program = `${SHOW}\nexport default (expression) => evaluated(expression);\n`;
  if (process.argv[2]) return writeFileSync(process.argv[2], program);
  const { default: evaluate } = await import("data:text/javascript," + encodeURIComponent(program));
  const { log } = console;
  // Standard output is the table's.
  for (const name of ["table", "dir", "log"]) console[name] = () => {};
  for (const expression of all) log(JSON.stringify([expression, await evaluate(expression)]));
  process.exit(ZONE ? 0 : 1);
}
