// The globals that functions expect beside the language itself.

import { base64, fromBase64 } from "./base64.mjs";
import { structuredClone } from "./clone.mjs";
import { format } from "./inspect.mjs";
import names from "./node-names.json";
import { TextDecoder } from "./text.mjs";
import { touched } from "./touch.mjs";

function btoa(text) {
  text = String(text);
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 255) throw new DOMException("Invalid character", "InvalidCharacterError");
  return base64(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
}

function atob(text) {
  const plain = String(text).replace(/[\t\n\f\r ]/g, "");
  const padless = plain.length % 4 === 0 ? plain.replace(/={1,2}$/, "") : plain;
  if (padless.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(padless)) {
    throw new DOMException("The string to be decoded is not correctly encoded.", "InvalidCharacterError");
  }
  return Array.from(fromBase64(padless), (byte) => String.fromCharCode(byte)).join("");
}

function installConsole(host) {
  const counts = new Map();
  const starts = new Map();
  let indent = "";
  // `mark` begins each line of what is not `info`: syslog's severities, which the host takes off again.
  const printer = (mark) => (...values) => {
    const text = values.length === 1 && typeof values[0] === "string" ? values[0] : format(values);
    const begin = mark + indent;
    host.log(begin ? begin + text.replace(/\n/g, "\n" + begin) + "\n" : text + "\n");
  };
  const print = printer("");
  const error = printer("<3>");
  const console = { log: print, info: print, debug: printer("<7>"), warn: printer("<4>"), error };
  console.dir = (value, options) => (options === undefined ? print(value) : touched("console.dir with options"));
  console.trace = (...values) => error("Trace:", ...values);
  console.assert = (held, ...values) => held || error("Assertion failed", ...values);
  console.group = (...values) => {
    if (values.length) print(...values);
    indent += "  ";
  };
  console.groupEnd = () => {
    indent = indent.slice(2);
  };
  console.count = (label = "default") => {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    print(`${label}: ${counts.get(label)}`);
  };
  console.time = (label = "default") => void starts.set(label, host.now());
  console.timeLog = console.timeEnd = (label = "default") =>
    starts.has(label) && print(`${label}: ${(host.now() - starts.get(label)).toFixed(3)}ms`);
  globalThis.console = console;
}

// xoshiro128**: quick, and not for secrets, as `Math.random` is anywhere. The engine's own generator was seeded when the
// component was built and would give every instance the same numbers.
function installRandom(host) {
  let a = 0, b = 0, c = 0, d = 0;
  const next = () => {
    if (!(a | b | c | d)) [a, b, c, d] = new Int32Array(new Uint8Array(host.random(16)).buffer);
    const scaled = Math.imul(b, 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result >>> 0;
  };
  Math.random = () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

const RANDOM_BYTES_MAX = 65536;

function installCrypto(host) {
  const getRandomValues = (array) => {
    if (!ArrayBuffer.isView(array) || array.byteLength > RANDOM_BYTES_MAX || /Float|DataView/.test(Object.prototype.toString.call(array))) {
      touched("an error of `crypto.getRandomValues`");
    }
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(host.random(array.byteLength));
    return array;
  };
  const randomUUID = () => {
    const bytes = new Uint8Array(host.random(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  };
  // As in Node: nothing of its own.
  globalThis.crypto = Object.create({ getRandomValues, randomUUID });
}

// The zone of all times here.
const UTC = /^(:?(Etc\/)?(UTC|UCT|Universal|Zulu|GMT)(0|[+-]0)?|)$/i;

export function checkZone(zone) {
  if (zone !== undefined && !UTC.test(zone)) touched("the variable TZ");
}

// Values are texts, whatever is assigned.
function environment() {
  return new Proxy({}, {
    set(variables, name, value) {
      if (name === "TZ") checkZone(String(value));
      variables[name] = String(value);
      return true;
    },
    defineProperty(variables, name, descriptor) {
      if (!("value" in descriptor) || name === "TZ") touched("Object.defineProperty of process.env");
      return Reflect.defineProperty(variables, name, { ...descriptor, value: String(descriptor.value) });
    },
  });
}

function installProcess(host) {
  const write = (piece) => {
    host.log(ArrayBuffer.isView(piece) ? new TextDecoder().decode(piece) : String(piece));
    return true;
  };
  const stream = { write };
  let within = false;
  const writeError = (piece) => {
    const text = ArrayBuffer.isView(piece) ? new TextDecoder().decode(piece) : String(piece);
    if (text === "") return true;
    host.log((within ? "" : "<3>") + text.replace(/\n(?!$)/g, "\n<3>"));
    within = !text.endsWith("\n");
    return true;
  };
  const hrtime = () => {
    const now = host.now();
    return [Math.floor(now / 1000), Math.floor((now % 1000) * 1e6)];
  };
  hrtime.bigint = () => BigInt(Math.floor(host.now() * 1e6));
  globalThis.process = {
    env: environment(),
    argv: ["/usr/bin/node", "/main.mjs"],
    platform: "linux",
    version: names.node,
    versions: { node: names.node.slice(1) },
    exitCode: undefined,
    stdout: stream,
    stderr: { write: writeError },
    cwd: () => "/",
    uptime: () => host.now() / 1000,
    hrtime,
    nextTick: (callback, ...args) => queueMicrotask(() => callback(...args)),
    exit: (code = process.exitCode ?? 0) => host.exit(Number(code) | 0),
    abort: () => host.exit(134),
    emitWarning: (text) => host.log(`<4>(warning) ${text}\n`),
  };
}

export function install(host) {
  const define = (name, value) => {
    if (globalThis[name] === undefined) globalThis[name] = value;
  };
  installConsole(host);
  installRandom(host);
  installCrypto(host);
  installProcess(host);
  const { queueMicrotask } = globalThis;
  globalThis.queueMicrotask = (callback) => {
    if (typeof callback !== "function") touched("an error of `queueMicrotask`");
    queueMicrotask(callback);
  };
  let origin;
  globalThis.performance = Object.create({
    now: () => host.now(),
    get timeOrigin() {
      return (origin ??= Date.now() - host.now());
    },
    toJSON: () => touched("performance.toJSON"),
  });
  define("btoa", btoa);
  define("atob", atob);
  define("structuredClone", structuredClone);
  globalThis.global = globalThis;
}
