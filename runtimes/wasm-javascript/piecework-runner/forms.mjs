// The forms of values in answers: bytes are `$bytes`, and what JSON would drop without a word is an error. The rules are those
// of runtimes/jail/node.cjs.

import { base64 } from "./base64.mjs";

const define = Object.defineProperty;

function bytes() {
  const view = this instanceof ArrayBuffer ? new Uint8Array(this) : new Uint8Array(this.buffer, this.byteOffset, this.byteLength);
  return { $bytes: base64(view) };
}

const iterators = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));
const asyncIterators = Object.getPrototypeOf(Object.getPrototypeOf(async function* () {}.prototype));

const WITHOUT = [
  [Map.prototype, "a Map", "return Object.fromEntries(map) or [...map]"],
  [Set.prototype, "a Set", "return [...set]"],
  [WeakMap.prototype, "a WeakMap", "return what is in it"],
  [WeakSet.prototype, "a WeakSet", "return what is in it"],
  [Promise.prototype, "a Promise", "await it"],
  [RegExp.prototype, "a RegExp", "return its source"],
  [Error.prototype, "an Error", "throw it, or return its message"],
  [iterators, "an iterator", "return [...iterator], or the iterator itself for a stream"],
  [asyncIterators, "an asynchronous iterator", "return it itself for a stream"],
  [BigInt.prototype, "a BigInt", "return String(number) or Number(number)"],
];

export function install(isAnswering) {
  const inAnswers = (prototype, toJSON) => {
    const own = Object.getOwnPropertyDescriptor(prototype, "toJSON")?.value;
    define(prototype, "toJSON", {
      get: () => (isAnswering() ? toJSON : own),
      set(value) {
        define(this, "toJSON", { value, writable: true, enumerable: true, configurable: true });
      },
      configurable: true,
    });
  };
  for (const prototype of [Uint8Array.prototype, ArrayBuffer.prototype, DataView.prototype]) inAnswers(prototype, bytes);
  for (const [prototype, what, instead] of WITHOUT) {
    inAnswers(prototype, () => {
      throw new TypeError(`${what} has no JSON form; ${instead}`);
    });
  }
}
