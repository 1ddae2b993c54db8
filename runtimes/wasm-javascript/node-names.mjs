// What Node has: prints node-names.json, the names that touched.mjs compares the component with.
//
//     node node-names.mjs > piecework-runner/node-names.json
//
// Each place is a path from the global object to an object, with the names of its own properties. Symbols are written as
// `@@iterator`. What begins with an underscore is Node's own business and left out.

import process from "node:process";

const OMITTED = new Set(["constructor", "prototype", "length", "name", "caller", "arguments", "toJSON"]);
// Objects that are not looked into: they are in the component as a whole, or not at all.
const LEAVES = new Set(["globalThis", "global", "Intl", "WebAssembly", "navigator", "crypto.subtle", "process.env", "process.config",
  "process.release", "process.report", "process.features", "process.stdin", "process.stdout", "process.stderr",
  "process.allowedNodeEnvironmentFlags", "process.permission", "process.finalization"]);
// Objects without a name of their own.
const NAMELESS = {
  "%TypedArray%": Object.getPrototypeOf(Int8Array),
  "%IteratorPrototype%": Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())),
  "%ArrayIteratorPrototype%": Object.getPrototypeOf([][Symbol.iterator]()),
  "%GeneratorPrototype%": Object.getPrototypeOf(function* () {}).prototype,
  "%AsyncGeneratorPrototype%": Object.getPrototypeOf(async function* () {}).prototype,
};

const places = {};
const seen = new Set();

function nameOf(key) {
  if (typeof key === "string") return key;
  const wellKnown = Reflect.ownKeys(Symbol).find((name) => Symbol[name] === key);
  return wellKnown ? "@@" + wellKnown : null;
}

function look(path, object) {
  if (seen.has(object)) return;
  seen.add(object);
  const names = [];
  for (const key of Reflect.ownKeys(object)) {
    const name = nameOf(key);
    if (name === null || name.startsWith("_") || name === "@@toStringTag" || name === "@@unscopables") continue;
    const descriptor = Object.getOwnPropertyDescriptor(object, key);
    const whole = path === "globalThis" ? name : `${path}.${name}`;
    if (!OMITTED.has(name)) names.push(name);
    // An accessor of a prototype has no value; one of the global object has.
    const value = "value" in descriptor ? descriptor.value : path === "globalThis" ? object[key] : undefined;
    const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
    if (!isObject || LEAVES.has(whole) || (name === "constructor" && path.endsWith(".prototype"))) continue;
    // A method is a leaf; a class has an upper case letter.
    if (typeof value === "function" && !/^[A-Z%]/.test(name) && name !== "prototype") continue;
    if (/^[a-z]/.test(name) && path !== "globalThis" && name !== "prototype") continue;
    if (path.endsWith(".prototype")) continue;
    look(whole, value);
  }
  if (names.length) places[path] = names.sort();
}

look("globalThis", globalThis);
for (const [path, object] of Object.entries(NAMELESS)) {
  look(path, object);
  if (typeof object === "function") look(`${path}.prototype`, object.prototype);
}
// Objects with what they inherit: in the component they are plain ones.
const INHERITING = { process, performance, crypto, "process.stdout": process.stdout, "process.stderr": process.stderr, "process.versions": process.versions };
for (const [path, whole] of Object.entries(INHERITING)) {
  const names = new Set(places[path]);
  for (let object = whole; object !== Object.prototype; object = Object.getPrototypeOf(object)) {
    for (const name of Object.getOwnPropertyNames(object)) if (!OMITTED.has(name) && !name.startsWith("_")) names.add(name);
  }
  places[path] = [...names].sort();
}
console.log(JSON.stringify({ node: process.version, places }, null, 0).replace(/"([^"]+)":\[/g, '\n"$1":['));
