// `URL` and `URLSearchParams`, as far as functions that read and build addresses need them. Hosts are taken as they are:
// no IDNA.

const SPECIAL_PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21" };
const PARTS = /^([a-z][a-z0-9+.-]*:)(?:\/\/(?:([^/?#@]*)@)?(\[[^\]]*\]|[^/?#:]*)(?::(\d*))?)?([^?#]*)(\?[^#]*)?(#.*)?$/i;

function encodeWith(text, kept) {
  return encodeURIComponent(text).replace(/%[0-9A-F]{2}/g, (code) => {
    const letter = String.fromCharCode(parseInt(code.slice(1), 16));
    return kept.includes(letter) ? letter : code;
  });
}

function decodeForm(text) {
  const spaced = text.replace(/\+/g, " ");
  try {
    return decodeURIComponent(spaced);
  } catch {
    return spaced;
  }
}

function encodeForm(text) {
  return encodeURIComponent(text)
    .replace(/%20/g, "+")
    .replace(/[!'()~]/g, (letter) => "%" + letter.charCodeAt(0).toString(16).toUpperCase());
}

export class URLSearchParams {
  #pairs = [];
  #changed = () => {};

  constructor(init = "", changed) {
    if (changed) this.#changed = changed;
    if (typeof init === "string") this.#parse(init);
    else if (typeof init?.[Symbol.iterator] === "function") {
      for (const [name, value] of init) this.#pairs.push([String(name), String(value)]);
    } else for (const name of Object.keys(init ?? {})) this.#pairs.push([name, String(init[name])]);
  }

  #parse(text) {
    for (const part of text.replace(/^\?/, "").split("&")) {
      if (!part) continue;
      const at = part.indexOf("=");
      const [name, value] = at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)];
      this.#pairs.push([decodeForm(name), decodeForm(value)]);
    }
  }

  get size() {
    return this.#pairs.length;
  }
  append(name, value) {
    this.#pairs.push([String(name), String(value)]);
    this.#changed();
  }
  delete(name) {
    this.#pairs = this.#pairs.filter(([key]) => key !== name);
    this.#changed();
  }
  get(name) {
    return this.#pairs.find(([key]) => key === name)?.[1] ?? null;
  }
  getAll(name) {
    return this.#pairs.filter(([key]) => key === name).map(([, value]) => value);
  }
  has(name) {
    return this.#pairs.some(([key]) => key === name);
  }
  set(name, value) {
    const at = this.#pairs.findIndex(([key]) => key === name);
    if (at < 0) this.#pairs.push([String(name), String(value)]);
    else {
      this.#pairs[at][1] = String(value);
      this.#pairs = this.#pairs.filter(([key], index) => key !== name || index === at);
    }
    this.#changed();
  }
  sort() {
    this.#pairs.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
    this.#changed();
  }
  forEach(callback) {
    for (const [name, value] of this.#pairs) callback(value, name, this);
  }
  *entries() {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
  *keys() {
    for (const [name] of this.#pairs) yield name;
  }
  *values() {
    for (const [, value] of this.#pairs) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  toString() {
    return this.#pairs.map(([name, value]) => `${encodeForm(name)}=${encodeForm(value)}`).join("&");
  }
}

function withoutDots(path) {
  const kept = [];
  const parts = path.split("/");
  parts.forEach((part, index) => {
    const last = index === parts.length - 1;
    if (part === "..") {
      if (kept.length > 1) kept.pop();
      if (last) kept.push("");
    } else if (part === ".") {
      if (last) kept.push("");
    } else kept.push(part);
  });
  return kept.join("/");
}

function resolve(text, base) {
  if (/^[a-z][a-z0-9+.-]*:/i.test(text) || base === undefined) return text;
  const from = new URL(base);
  const origin = from.protocol + "//" + from.host;
  if (text.startsWith("//")) return from.protocol + text;
  if (text.startsWith("/")) return origin + text;
  if (text.startsWith("?")) return origin + from.pathname + text;
  if (text.startsWith("#") || text === "") return origin + from.pathname + from.search + text;
  return origin + from.pathname.slice(0, from.pathname.lastIndexOf("/") + 1) + text;
}

export class URL {
  #search = "";

  constructor(text, base) {
    const match = PARTS.exec(resolve(String(text).trim(), base));
    const special = match && match[1].toLowerCase() in SPECIAL_PORTS;
    if (!match || (special && !match[3])) throw Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL", input: text });
    const [username = "", password = ""] = (match[2] ?? "").split(/:(.*)/s);
    this.protocol = match[1].toLowerCase();
    this.username = username;
    this.password = password;
    this.hostname = special ? match[3].toLowerCase() : (match[3] ?? "");
    this.port = match[4] && match[4] !== SPECIAL_PORTS[this.protocol] ? String(Number(match[4])) : "";
    const path = encodeWith(match[5], "/%:@!$&'()*+,;=~[]|");
    this.pathname = special ? withoutDots(path || "/") : path;
    this.hash = match[7] && match[7] !== "#" ? match[7] : "";
    this.search = match[6] ?? "";
    // Whether there is an authority, also an empty one: `file:///x`.
    Object.defineProperty(this, "slashes", { value: match[3] !== undefined });
  }

  static canParse(text, base) {
    try {
      return Boolean(new URL(text, base));
    } catch {
      return false;
    }
  }

  get search() {
    return this.#search;
  }
  set search(text) {
    text = String(text);
    this.#search = text === "" || text === "?" ? "" : "?" + encodeWith(text.replace(/^\?/, ""), "/%:@!$&()*+,;=~[]?|");
    const params = new URLSearchParams(this.#search, () => {
      const changed = params.toString();
      this.#search = changed ? "?" + changed : "";
    });
    Object.defineProperty(this, "searchParams", { value: params, configurable: true });
  }
  get host() {
    return this.hostname + (this.port ? ":" + this.port : "");
  }
  get origin() {
    return this.protocol in SPECIAL_PORTS ? `${this.protocol}//${this.host}` : "null";
  }
  get href() {
    const login = this.username ? this.username + (this.password ? ":" + this.password : "") + "@" : "";
    return this.protocol + (this.slashes ? "//" + login + this.host : "") + this.pathname + this.search + this.hash;
  }
  toString() {
    return this.href;
  }
  toJSON() {
    return this.href;
  }
}
