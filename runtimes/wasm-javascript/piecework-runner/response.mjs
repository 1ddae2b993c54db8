// `Headers` and `Response` of the Fetch Standard, as far as answers are made of them; nothing is fetched here.
//
// https://fetch.spec.whatwg.org/#headers-class

import { ReadableStream, isDisturbed } from "./streams.mjs";

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const EMPTY_STATUSES = [204, 205, 304];
const REDIRECTS = [301, 302, 303, 307, 308];

function nameOf(name) {
  if (!NAME.test(String(name))) throw new TypeError(`\`${name}\` is not the name of a header`);
  return String(name).toLowerCase();
}

function valueOf(value) {
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (/[\0\n\r]/.test(text)) throw new TypeError("the value of a header has no line breaks");
  return text;
}

export class Headers {
  #pairs = [];

  constructor(init) {
    if (init === undefined) return;
    if (init === null || typeof init !== "object") throw new TypeError("headers are made from an object or from pairs");
    if (typeof init[Symbol.iterator] !== "function") init = Object.entries(init);
    for (const pair of init) {
      const [name, value, ...more] = pair;
      if (value === undefined || more.length) throw new TypeError("a header is a pair of a name and a value");
      this.append(name, value);
    }
  }
  append(name, value) {
    this.#pairs.push([nameOf(name), valueOf(value)]);
  }
  delete(name) {
    name = nameOf(name);
    this.#pairs = this.#pairs.filter(([other]) => other !== name);
  }
  get(name) {
    name = nameOf(name);
    const values = this.#pairs.filter(([other]) => other === name).map(([, value]) => value);
    return values.length ? values.join(", ") : null;
  }
  getSetCookie() {
    return this.#pairs.filter(([name]) => name === "set-cookie").map(([, value]) => value);
  }
  has(name) {
    name = nameOf(name);
    return this.#pairs.some(([other]) => other === name);
  }
  set(name, value) {
    [name, value] = [nameOf(name), valueOf(value)];
    const at = this.#pairs.findIndex(([other]) => other === name);
    if (at < 0) return void this.#pairs.push([name, value]);
    this.#pairs = this.#pairs.filter(([other], index) => other !== name || index === at);
    this.#pairs[this.#pairs.findIndex(([other]) => other === name)] = [name, value];
  }
  forEach(callback, self) {
    for (const [name, value] of this) callback.call(self, value, name, this);
  }
  // Sorted, values of one name joined; cookies stay apart, since commas occur in them.
  *entries() {
    const names = [...new Set(this.#pairs.map(([name]) => name))].sort();
    for (const name of names) {
      if (name !== "set-cookie") yield [name, this.get(name)];
      else for (const value of this.getSetCookie()) yield [name, value];
    }
  }
  *keys() {
    for (const [name] of this.entries()) yield name;
  }
  *values() {
    for (const [, value] of this.entries()) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  get [Symbol.toStringTag]() {
    return "Headers";
  }
}

// A stream of what a body may be given as, and the content type that goes with it.
function extracted(body) {
  if (body instanceof ReadableStream) {
    if (body.locked || isDisturbed(body)) throw new TypeError("the stream was read before");
    return [body, null];
  }
  const one = (chunk) =>
    new ReadableStream({
      start(controller) {
        if (chunk.length) controller.enqueue(chunk);
        controller.close();
      },
    });
  if (ArrayBuffer.isView(body)) return [one(new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice()), null];
  if (body instanceof ArrayBuffer) return [one(new Uint8Array(body.slice(0))), null];
  const form = body instanceof URLSearchParams ? "application/x-www-form-urlencoded;charset=UTF-8" : null;
  return [one(new TextEncoder().encode(String(body))), form ?? "text/plain;charset=UTF-8"];
}

async function bytesOf(response) {
  if (response.bodyUsed || response.body?.locked) throw new TypeError("the body was read before");
  const chunks = [];
  let length = 0;
  if (response.body) {
    for await (const chunk of response.body) {
      if (!(chunk instanceof Uint8Array)) throw new TypeError("the body of a response is a stream of bytes");
      chunks.push(chunk);
      length += chunk.length;
    }
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

export class Response {
  #status;
  #statusText;
  #headers;
  #body = null;

  constructor(body = null, { status = 200, statusText = "", headers } = {}) {
    if (!Number.isInteger(status) || status < 200 || status > 599) throw new RangeError("a status is 200 to 599");
    this.#status = status;
    this.#statusText = String(statusText);
    this.#headers = new Headers(headers);
    if (body === null) return;
    if (EMPTY_STATUSES.includes(status)) throw new TypeError(`an answer with the status ${status} has no body`);
    const [stream, type] = extracted(body);
    this.#body = stream;
    if (type && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
  }
  static json(value, init = {}) {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError("the value is not JSON");
    const headers = new Headers(init.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(text, { ...init, headers });
  }
  static redirect(url, status = 302) {
    if (!REDIRECTS.includes(status)) throw new RangeError("that is no status of a redirection");
    return new Response(null, { status, headers: { location: String(url) } });
  }

  get status() {
    return this.#status;
  }
  get statusText() {
    return this.#statusText;
  }
  get ok() {
    return this.#status < 300;
  }
  get headers() {
    return this.#headers;
  }
  get body() {
    return this.#body;
  }
  get bodyUsed() {
    return this.#body !== null && isDisturbed(this.#body);
  }
  async bytes() {
    return bytesOf(this);
  }
  async arrayBuffer() {
    return (await bytesOf(this)).buffer;
  }
  async text() {
    return new TextDecoder().decode(await bytesOf(this));
  }
  async json() {
    return JSON.parse(await this.text());
  }
  get [Symbol.toStringTag]() {
    return "Response";
  }
}

export function install() {
  Object.assign(globalThis, { Headers, Response });
}
