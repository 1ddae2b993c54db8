// The part of Node's `Buffer` that functions use most: texts to bytes and back.

import { base64, fromBase64 } from "./base64.mjs";

const encoder = { encode: null, decode: null };

// The text codec comes from globals.mjs, which would otherwise be imported in a circle.
export function useCodec(encode, decode) {
  encoder.encode = encode;
  encoder.decode = decode;
}

function bytesOf(text, encoding) {
  switch (String(encoding).toLowerCase()) {
    case "hex":
      return Uint8Array.from(text.match(/[0-9a-f]{2}/gi) ?? [], (pair) => parseInt(pair, 16));
    case "base64":
    case "base64url":
      return fromBase64(text.replace(/-/g, "+").replace(/_/g, "/"));
    case "latin1":
    case "binary":
    case "ascii":
      return Uint8Array.from(text, (letter) => letter.charCodeAt(0) & 255);
    default:
      return encoder.encode(text);
  }
}

export class Buffer extends Uint8Array {
  static from(value, encoding = "utf8") {
    if (typeof value === "string") return Buffer.#of(bytesOf(value, encoding));
    if (value instanceof ArrayBuffer) return new Buffer(value, ...(typeof encoding === "number" ? [encoding] : []));
    return Buffer.#of(Uint8Array.from(value?.type === "Buffer" ? value.data : value));
  }
  static #of(bytes) {
    return new Buffer(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  static alloc(length, fill = 0) {
    const buffer = new Buffer(length);
    return fill === 0 ? buffer : buffer.fill(typeof fill === "string" ? bytesOf(fill)[0] : fill);
  }
  static allocUnsafe(length) {
    return new Buffer(length);
  }
  static isBuffer(value) {
    return value instanceof Buffer;
  }
  static byteLength(value, encoding = "utf8") {
    return typeof value === "string" ? bytesOf(value, encoding).length : value.byteLength;
  }
  static concat(list, length = list.reduce((sum, bytes) => sum + bytes.length, 0)) {
    const joined = new Buffer(length);
    let at = 0;
    for (const bytes of list) {
      joined.set(bytes.subarray(0, length - at), at);
      at += Math.min(bytes.length, length - at);
    }
    return joined;
  }
  static compare(one, other) {
    for (let at = 0; at < Math.min(one.length, other.length); at++) {
      if (one[at] !== other[at]) return one[at] < other[at] ? -1 : 1;
    }
    return Math.sign(one.length - other.length);
  }

  equals(other) {
    return Buffer.compare(this, other) === 0;
  }
  toString(encoding = "utf8", start = 0, end = this.length) {
    const bytes = this.subarray(start, end);
    switch (String(encoding).toLowerCase()) {
      case "hex":
        return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      case "base64":
        return base64(bytes);
      case "base64url":
        return base64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
      case "latin1":
      case "binary":
      case "ascii":
        return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
      default:
        return encoder.decode(bytes, false);
    }
  }
}
