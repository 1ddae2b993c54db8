// The globals that functions expect beside the language itself.

import { base64, fromBase64 } from "./base64.mjs";
import { Buffer, useCodec } from "./buffer.mjs";
import { format } from "./inspect.mjs";
import { URL, URLSearchParams } from "./url.mjs";

function encodeUtf8(text) {
  const bytes = [];
  for (const letter of text) {
    let code = letter.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return new Uint8Array(bytes);
}

// A sequence's second byte has a narrower range after these first bytes: no overlong forms, no surrogates, no code above
// U+10FFFF.
function secondByteRange(first) {
  if (first === 0xe0) return [0xa0, 0xbf];
  if (first === 0xed) return [0x80, 0x9f];
  if (first === 0xf0) return [0x90, 0xbf];
  if (first === 0xf4) return [0x80, 0x8f];
  return [0x80, 0xbf];
}

function decodeUtf8(bytes, fatal) {
  const parts = [];
  let index = 0;
  while (index < bytes.length) {
    const first = bytes[index++];
    if (first < 0x80) {
      parts.push(first);
      continue;
    }
    let more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
    let code = more < 0 ? 0xfffd : first & (0x3f >> more);
    let [low, high] = secondByteRange(first);
    while (more > 0 && index < bytes.length && bytes[index] >= low && bytes[index] <= high) {
      code = (code << 6) | (bytes[index++] & 63);
      more -= 1;
      [low, high] = [0x80, 0xbf];
    }
    if (more !== 0) {
      if (fatal) throw new TypeError("the bytes are not UTF-8");
      code = 0xfffd;
    }
    parts.push(code);
  }
  let text = "";
  for (let at = 0; at < parts.length; at += 4096) text += String.fromCodePoint(...parts.slice(at, at + 4096));
  return text;
}

class TextEncoder {
  get encoding() {
    return "utf-8";
  }
  encode(text = "") {
    return encodeUtf8(String(text));
  }
}

class TextDecoder {
  constructor(label = "utf-8", options = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`the encoding ${label} is not supported`);
    this.fatal = Boolean(options.fatal);
    this.ignoreBOM = Boolean(options.ignoreBOM);
  }
  get encoding() {
    return "utf-8";
  }
  decode(input = new Uint8Array()) {
    const bytes = ArrayBuffer.isView(input)
      ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
      : new Uint8Array(input);
    const text = decodeUtf8(bytes, this.fatal);
    return !this.ignoreBOM && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  }
}

function btoa(text) {
  const bytes = Uint8Array.from(String(text), (letter) => {
    if (letter.charCodeAt(0) > 255) throw new RangeError("btoa takes characters up to U+00FF");
    return letter.charCodeAt(0);
  });
  return base64(bytes);
}

function atob(text) {
  const bytes = fromBase64(String(text).replace(/[\t\n\f\r ]/g, ""));
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function clone(value, seen = new Map()) {
  if (typeof value === "function" || typeof value === "symbol") throw new TypeError("the value cannot be cloned");
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  if (value instanceof Date) return new Date(value);
  if (value instanceof RegExp) return new RegExp(value.source, value.flags);
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return value.slice();
  if (value instanceof ArrayBuffer) return value.slice(0);
  if (value instanceof Map) {
    const copy = new Map();
    seen.set(value, copy);
    for (const [key, item] of value) copy.set(clone(key, seen), clone(item, seen));
    return copy;
  }
  if (value instanceof Set) {
    const copy = new Set();
    seen.set(value, copy);
    for (const item of value) copy.add(clone(item, seen));
    return copy;
  }
  if (value instanceof Error) return Object.assign(new value.constructor(value.message), { stack: value.stack });
  const copy = Array.isArray(value) ? new Array(value.length) : {};
  seen.set(value, copy);
  for (const key of Object.keys(value)) copy[key] = clone(value[key], seen);
  return copy;
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
  const console = { log: print, info: print, debug: printer("<7>"), warn: printer("<4>"), error, table: print };
  console.dir = (value) => print(value);
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
    if (!ArrayBuffer.isView(array) || array.byteLength > RANDOM_BYTES_MAX) {
      throw new RangeError("getRandomValues fills an integer array of up to 65536 bytes");
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
  globalThis.crypto = Object.freeze({ getRandomValues, randomUUID });
}

function installProcess(host) {
  const write = (piece) => {
    host.log(ArrayBuffer.isView(piece) ? new TextDecoder().decode(piece) : String(piece));
    return true;
  };
  const stream = { write, isTTY: false };
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
    env: {},
    argv: ["piecework"],
    platform: "wasi",
    arch: "wasm32",
    version: "",
    versions: { quickjs: "" },
    exitCode: undefined,
    stdout: stream,
    stderr: { write: writeError, isTTY: false },
    cwd: () => "/",
    uptime: () => host.now() / 1000,
    hrtime,
    nextTick: (callback, ...args) => queueMicrotask(() => callback(...args)),
    exit: (code = process.exitCode ?? 0) => host.exit(Number(code) | 0),
    abort: () => host.exit(134),
    on: () => process,
    once: () => process,
    off: () => process,
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
  define("queueMicrotask", (callback) => void Promise.resolve().then(callback));
  globalThis.performance = { now: () => host.now(), timeOrigin: 0 };
  define("TextEncoder", TextEncoder);
  define("TextDecoder", TextDecoder);
  define("btoa", btoa);
  define("atob", atob);
  define("structuredClone", (value) => clone(value));
  useCodec(encodeUtf8, decodeUtf8);
  define("Buffer", Buffer);
  define("URL", URL);
  define("URLSearchParams", URLSearchParams);
  globalThis.global = globalThis;
}
