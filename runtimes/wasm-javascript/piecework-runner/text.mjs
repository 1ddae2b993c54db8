// `TextEncoder` and `TextDecoder` of the Encoding Standard: UTF-8, UTF-16LE and what of Latin-1 every Node reads alike.
//
// https://encoding.spec.whatwg.org/

import { touched } from "./touch.mjs";

export function encodeUtf8(text) {
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

function following(first) {
  if (first >= 0xc2 && first < 0xe0) return 1;
  if (first >= 0xe0 && first < 0xf0) return 2;
  return first >= 0xf0 && first < 0xf5 ? 3 : -1;
}

function invalid(encoding) {
  const error = new TypeError(`The encoded data was not valid for encoding ${encoding}`);
  error.code = "ERR_ENCODING_INVALID_ENCODED_DATA";
  return error;
}

function textOf(codes) {
  let text = "";
  for (let at = 0; at < codes.length; at += 4096) text += String.fromCodePoint(...codes.slice(at, at + 4096));
  return text;
}

/** The text, and how many bytes at the end are the beginning of a letter. */
function utf8(bytes, fatal) {
  const codes = [];
  let index = 0;
  while (index < bytes.length) {
    const begin = index;
    const first = bytes[index++];
    if (first < 0x80) {
      codes.push(first);
      continue;
    }
    let more = following(first);
    let code = more < 0 ? 0xfffd : first & (0x3f >> more);
    let [low, high] = secondByteRange(first);
    while (more > 0 && index < bytes.length && bytes[index] >= low && bytes[index] <= high) {
      code = (code << 6) | (bytes[index++] & 63);
      more -= 1;
      [low, high] = [0x80, 0xbf];
    }
    if (more > 0 && index === bytes.length) return [textOf(codes), bytes.length - begin];
    if (more !== 0) {
      if (fatal) throw invalid("utf-8");
      code = 0xfffd;
    }
    codes.push(code);
  }
  return [textOf(codes), 0];
}

export function decodeUtf8(bytes) {
  const [text, left] = utf8(bytes, false);
  return left ? text + "\ufffd" : text;
}

function utf16(bytes, fatal) {
  let text = "";
  let index = 0;
  for (; index + 1 < bytes.length; index += 2) {
    const unit = bytes[index] | (bytes[index + 1] << 8);
    if (unit >= 0xd800 && unit < 0xdc00) {
      if (index + 3 >= bytes.length) return [text, bytes.length - index];
      const next = bytes[index + 2] | (bytes[index + 3] << 8);
      if (next >= 0xdc00 && next < 0xe000) {
        text += String.fromCharCode(unit, next);
        index += 2;
        continue;
      }
    }
    if (unit >= 0xd800 && unit < 0xe000) {
      if (fatal) throw invalid("utf-16le");
      text += "\ufffd";
    } else text += String.fromCharCode(unit);
  }
  return [text, bytes.length - index];
}

function latin1(bytes) {
  // Windows-1252 by the standard, Latin-1 in some versions of Node.
  if (bytes.some((byte) => byte >= 0x80 && byte < 0xa0)) touched("TextDecoder of windows-1252");
  return [Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""), 0];
}

const ENCODINGS = [
  ["utf-8", /^(unicode-1-1-utf-8|unicode11utf8|unicode20utf8|utf-8|utf8|x-unicode20utf8)$/, utf8],
  ["utf-16le", /^(csunicode|iso-10646-ucs-2|ucs-2|unicode|unicodefeff|utf-16|utf-16le)$/, utf16],
  ["windows-1252", /^(ansi_x3.4-1968|ascii|cp1252|cp819|csisolatin1|ibm819|iso-8859-1|iso-ir-100|iso8859-1|iso88591|iso_8859-1|l1|latin1|us-ascii|windows-1252|x-cp1252)$/, latin1],
];

function bytesOf(input) {
  if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
  if (input instanceof ArrayBuffer) return new Uint8Array(input);
  const error = new TypeError('The "list" argument must be an instance of SharedArrayBuffer, ArrayBuffer or ArrayBufferView.');
  error.code = "ERR_INVALID_ARG_TYPE";
  throw error;
}

export class TextEncoder {
  get encoding() {
    return "utf-8";
  }
  encode(text = "") {
    return encodeUtf8(String(text));
  }
}

export class TextDecoder {
  #encoding;
  #read;
  #fatal;
  #ignoreBOM;
  #begun = false;
  #left = new Uint8Array();
  constructor(label = "utf-8", options = {}) {
    const name = String(label).replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase();
    const found = ENCODINGS.find(([, names]) => names.test(name));
    if (!found) touched(`TextDecoder of ${name}`);
    [this.#encoding, , this.#read] = found;
    this.#fatal = Boolean(options?.fatal);
    this.#ignoreBOM = Boolean(options?.ignoreBOM);
  }
  get encoding() {
    return this.#encoding;
  }
  get fatal() {
    return this.#fatal;
  }
  get ignoreBOM() {
    return this.#ignoreBOM;
  }
  decode(input = new Uint8Array(), options = {}) {
    let bytes = bytesOf(input);
    if (this.#left.length) {
      const joined = new Uint8Array(this.#left.length + bytes.length);
      joined.set(this.#left);
      joined.set(bytes, this.#left.length);
      bytes = joined;
    }
    const streams = Boolean(options?.stream);
    let [text, left] = this.#read(bytes, this.#fatal);
    this.#left = streams && left ? bytes.slice(bytes.length - left) : new Uint8Array();
    if (left && !streams) {
      if (this.#fatal) throw invalid(this.#encoding);
      text += "\ufffd";
    }
    if (!this.#begun && !this.#ignoreBOM && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    this.#begun = streams && (this.#begun || text !== "" || (bytes.length > 0 && left === 0));
    return text;
  }
}

// At once: the packages look for them when they are imported.
Object.defineProperty(globalThis, "TextEncoder", { value: TextEncoder, writable: true, enumerable: false, configurable: true });
Object.defineProperty(globalThis, "TextDecoder", { value: TextDecoder, writable: true, enumerable: false, configurable: true });
