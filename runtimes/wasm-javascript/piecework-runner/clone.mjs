// `structuredClone` of what the algorithm takes; the rest is trapped.
//
// https://html.spec.whatwg.org/multipage/structured-data.html

import { touched } from "./touch.mjs";

const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
const TYPED = Object.getPrototypeOf(Int8Array);
const kind = (value) => Object.prototype.toString.call(value).slice(8, -1);
const tagOf = Object.getOwnPropertyDescriptor(TYPED.prototype, Symbol.toStringTag).get;

function bufferOf(buffer, seen) {
  if (!(buffer instanceof ArrayBuffer)) touched("structuredClone of a SharedArrayBuffer");
  if (!seen.has(buffer)) seen.set(buffer, buffer.slice(0));
  return seen.get(buffer);
}

function errorOf(error, seen) {
  const Kind = ERRORS[error.name] ?? Error;
  const made = new Kind(error.message);
  seen.set(error, made);
  Object.defineProperty(made, "stack", { value: error.stack, writable: true, enumerable: false, configurable: true });
  if (Object.hasOwn(error, "cause")) Object.defineProperty(made, "cause", { value: clone(error.cause, seen), writable: true, enumerable: false, configurable: true });
  return made;
}

function clone(value, seen) {
  if (typeof value === "symbol" || typeof value === "function") touched("structuredClone of what cannot be cloned");
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (ArrayBuffer.isView(value)) {
    const buffer = bufferOf(value.buffer, seen);
    if (value instanceof DataView) return keep(new DataView(buffer, value.byteOffset, value.byteLength));
    return keep(new globalThis[tagOf.call(value)](buffer, value.byteOffset, value.length));
  }
  switch (kind(value)) {
    case "Date":
      return keep(new Date(value.getTime()));
    case "RegExp":
      return keep(new RegExp(value.source, value.flags));
    case "ArrayBuffer":
      return bufferOf(value, seen);
    case "Boolean":
    case "Number":
    case "String":
      return keep(Object(value.valueOf()));
    case "Map": {
      const copy = keep(new Map());
      for (const [key, item] of [...Map.prototype.entries.call(value)]) copy.set(clone(key, seen), clone(item, seen));
      return copy;
    }
    case "Set": {
      const copy = keep(new Set());
      for (const item of [...Set.prototype.values.call(value)]) copy.add(clone(item, seen));
      return copy;
    }
    case "Error":
      return errorOf(value, seen);
    case "Array":
    case "Object":
    case "Arguments": {
      const copy = keep(Array.isArray(value) ? new Array(value.length) : {});
      for (const key of Object.keys(value)) copy[key] = clone(value[key], seen);
      return copy;
    }
    default:
      // Also objects that name themselves, like a URL.
      return touched(`structuredClone of ${kind(value)}`);
  }
}

export function structuredClone(value, options) {
  if (arguments.length === 0 || (options !== undefined && options !== null && options.transfer !== undefined)) touched("structuredClone with transfer");
  return clone(value, new Map());
}
