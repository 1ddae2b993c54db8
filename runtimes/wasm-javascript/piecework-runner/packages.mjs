// `Buffer`, `URL` and `URLSearchParams` from packages that follow Node and the URL Standard. Where they do not follow Node,
// in codes of errors and in what is no proper text of an encoding, there is a trap.

import { decodeUtf8 } from "./text.mjs";
import { Buffer } from "buffer";
import { URL as StandardURL, URLSearchParams as StandardParams } from "whatwg-url";
import { touched } from "./touch.mjs";

const put = (object, key, value) => Object.defineProperty(object, key, { value, writable: true, enumerable: false, configurable: true });

function invalid(input, base) {
  const error = new TypeError("Invalid URL");
  error.code = "ERR_INVALID_URL";
  error.input = String(input);
  if (base !== undefined) error.base = String(base);
  return error;
}

function installAddresses() {
  const URL = new Proxy(StandardURL, {
    construct(target, args, newTarget) {
      if (args.length === 0) touched("an error of `URL`");
      try {
        return Reflect.construct(target, args, newTarget === URL ? target : newTarget);
      } catch (error) {
        throw error instanceof TypeError && error.message.startsWith("Invalid ") ? invalid(args[0], args[1]) : error;
      }
    },
  });
  const { get, set } = Object.getOwnPropertyDescriptor(StandardURL.prototype, "href");
  Object.defineProperty(StandardURL.prototype, "href", {
    get,
    set(value) {
      try {
        set.call(this, value);
      } catch {
        throw invalid(value);
      }
    },
    enumerable: true,
    configurable: true,
  });
  put(StandardURL.prototype, "constructor", URL);
  const URLSearchParams = new Proxy(StandardParams, {
    construct(target, args, newTarget) {
      try {
        return Reflect.construct(target, args[0] === null ? [] : args, newTarget === URLSearchParams ? target : newTarget);
      } catch {
        return touched("an error of `URLSearchParams`");
      }
    },
  });
  put(StandardParams.prototype, "constructor", URLSearchParams);
  put(globalThis, "URL", URL);
  put(globalThis, "URLSearchParams", URLSearchParams);
}

const PLAIN = new Set(["utf8", "utf-8", "ucs2", "ucs-2", "utf16le", "utf-16le", "latin1", "binary", "ascii"]);
const BASE64 = /^[A-Za-z0-9+/_\-\s]*={0,2}\s*$/;

function known(encoding) {
  const name = encoding === undefined ? "utf8" : String(encoding).toLowerCase();
  if (!PLAIN.has(name) && name !== "hex" && name !== "base64" && name !== "base64url") touched(`the encoding ${name} of a Buffer`);
  return name;
}

// The name under which the package knows the encoding in which this text is well formed.
function wellFormed(text, encoding) {
  const name = known(encoding);
  if (name === "hex") return /^(?:[0-9a-f]{2})*$/i.test(text) ? name : touched("a Buffer of what is not hexadecimal");
  if (name !== "base64" && name !== "base64url") return name;
  const length = text.replace(/[\s=]/g, "").length;
  return BASE64.test(text) && length % 4 !== 1 ? "base64" : touched("a Buffer of what is not base64");
}

function toString(own) {
  return function toString(encoding, start, end) {
    const name = known(encoding);
    if (name === "base64url") return own.call(this, "base64", start, end).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
    if (name !== "utf8" && name !== "utf-8") return own.call(this, name, start, end);
    const from = Math.min(Math.max(Math.trunc(start) || 0, 0), this.length);
    const to = end === undefined ? this.length : Math.min(Math.max(Math.trunc(end) || 0, 0), this.length);
    return from < to ? decodeUtf8(Uint8Array.prototype.subarray.call(this, from, to)) : "";
  };
}

// What the package refuses, Node refuses with a code, or takes.
function guarded(name, own) {
  const guard = {
    [name](...args) {
      try {
        return own.apply(this, args);
      } catch {
        return touched(`an error of \`Buffer.${name}\``);
      }
    },
  }[name];
  put(guard, "length", own.length);
  return guard;
}

function installBuffer() {
  put(Buffer, "name", "Buffer");
  const proto = Buffer.prototype;
  const { from, byteLength } = Buffer;
  put(proto, "toString", toString(proto.toString));
  put(proto, "toLocaleString", proto.toString);
  for (const name of Object.getOwnPropertyNames(proto)) {
    const { value } = Object.getOwnPropertyDescriptor(proto, name);
    if (typeof value === "function" && name !== "constructor" && name !== "toString") put(proto, name, guarded(name, value));
  }
  // By the position of the encoding among the arguments.
  for (const [name, at] of [["write", undefined], ["fill", 3], ["indexOf", 2], ["lastIndexOf", 2], ["includes", 2]]) {
    const own = proto[name];
    put(proto, name, {
      [name](...args) {
        if (typeof args[0] === "string") {
          const place = at ?? args.findIndex((arg, index) => index > 0 && typeof arg === "string");
          const given = typeof args[1] === "string" && name !== "write" ? 1 : place;
          if (given > 0 && args[given] !== undefined) args[given] = wellFormed(args[0], args[given]);
          if (args[0] === "" && name !== "write") touched(`an empty text in \`Buffer.${name}\``);
        }
        return own.apply(this, args);
      },
    }[name]);
  }
  const guardedFrom = guarded("from", from);
  put(Buffer, "from", {
    from(value, encoding, length) {
      if (typeof value === "string") return guardedFrom.call(Buffer, value, wellFormed(value, encoding));
      return guardedFrom.call(Buffer, value, encoding, length);
    },
  }.from);
  put(Buffer, "byteLength", {
    byteLength(value, encoding) {
      if (typeof value !== "string") return guarded("byteLength", byteLength).call(Buffer, value);
      const name = wellFormed(value, encoding);
      return name === "base64" ? guardedFrom.call(Buffer, value, name).length : byteLength.call(Buffer, value, name);
    },
  }.byteLength);
  for (const name of ["alloc", "allocUnsafe", "allocUnsafeSlow", "concat", "compare"]) put(Buffer, name, guarded(name, Buffer[name]));
  put(Buffer, "isEncoding", { isEncoding: (name) => typeof name === "string" && (PLAIN.has(name.toLowerCase()) || /^(hex|base64|base64url)$/i.test(name)) }.isEncoding);
  put(globalThis, "Buffer", Buffer);
}

export function install() {
  installAddresses();
  installBuffer();
}
