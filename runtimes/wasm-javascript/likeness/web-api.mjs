// The Minimum Common Web API (WinterTC, https://min-common-api.proposal.wintertc.org), name by name: each has to be the same in the
// component as in Node, or to end the run where it is touched.
//
//     node web-api.mjs          each expression with what Node gives, a line of JSON for each
//     node web-api.mjs PROGRAM  writes a function that evaluates `event`, an expression, in the same way
//
// An expression begins with the name that it is about, in a comment.

import { run } from "./harness.mjs";

const text = "new TextDecoder().decode";
const read = "(async (s) => { const r = []; for await (const c of s) r.push(c); return r; })";
const of = "new ReadableStream({ start(c) { c.enqueue('a'); c.enqueue('b'); c.close(); } })";
const bytes = "new Uint8Array([104, 101, 108, 108, 111])";

const table = {
  // Common JavaScript of the web.
  globalThis: ["globalThis === globalThis.globalThis", "globalThis.constructor?.name"],
  self: ["typeof self", "globalThis.self === globalThis"],
  console: ["typeof console.log", "['log', 'info', 'warn', 'error', 'debug', 'assert', 'time', 'timeEnd', 'count', 'group', 'groupEnd', 'trace', 'dir', 'table'].map((n) => typeof console[n])"],
  navigator: ["typeof navigator", "navigator.userAgent.split('/')[0]"],
  performance: ["typeof performance.now()", "performance.now() <= performance.now()", "Number.isInteger(performance.timeOrigin) || performance.timeOrigin > 1e12", "typeof performance.mark('a')", "Object.keys(performance)", "JSON.stringify(Object.keys(performance.toJSON())).includes('timeOrigin')"],
  reportError: ["typeof reportError"],
  structuredClone: ["structuredClone({ a: [1, new Date(0)], b: new Map([[1, 2]]) })", "structuredClone(() => 1)", "structuredClone(new Error('x')).message", "(() => { const b = new ArrayBuffer(2); const c = structuredClone(b, { transfer: [b] }); return [b.byteLength, c.byteLength]; })()"],
  queueMicrotask: ["new Promise((r) => { const a = []; queueMicrotask(() => { a.push(2); r(a); }); a.push(1); })", "queueMicrotask(1)"],
  setTimeout: ["new Promise((r) => setTimeout(r, 1, 'x'))", "new Promise((r) => { const a = []; setTimeout(() => a.push('late'), 5); setTimeout(() => a.push('soon'), 1); setTimeout(() => r(a), 20); })"],
  clearTimeout: ["new Promise((r) => { const t = setTimeout(() => r('fired'), 1); clearTimeout(t); setTimeout(() => r('cleared'), 5); })"],
  setInterval: ["new Promise((r) => { let n = 0; const t = setInterval(() => { if (++n === 3) { clearInterval(t); r(n); } }, 1); })"],
  clearInterval: ["clearInterval(undefined)"],
  atob: ["atob('aGVsbG8=')", "atob(' a G V s ')", "atob('*')", "atob('a')"],
  btoa: ["btoa('hello')", "btoa('\\u0100')", "btoa('')"],
  WebAssembly: ["typeof WebAssembly", "WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))", "new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).exports"],
  // Events.
  Event: ["new Event('a').type", "new Event('a', { cancelable: true }).cancelable", "Event.prototype.constructor.name", "Event('a')"],
  EventTarget: ["(() => { const t = new EventTarget(); let n = 0; t.addEventListener('a', () => n++); t.dispatchEvent(new Event('a')); return n; })()", "(() => { const t = new EventTarget(); let n = 0; t.addEventListener('a', () => n++, { once: true }); t.dispatchEvent(new Event('a')); t.dispatchEvent(new Event('a')); return n; })()"],
  CustomEvent: ["new CustomEvent('a', { detail: 1 }).detail"],
  ErrorEvent: ["typeof ErrorEvent"],
  PromiseRejectionEvent: ["typeof PromiseRejectionEvent"],
  MessageEvent: ["new MessageEvent('a', { data: 1 }).data"],
  MessageChannel: ["typeof new MessageChannel().port1.postMessage"],
  MessagePort: ["typeof MessagePort"],
  AbortController: ["(() => { const c = new AbortController(); c.abort('why'); return [c.signal.aborted, c.signal.reason]; })()", "new AbortController().signal.aborted"],
  AbortSignal: ["AbortSignal.abort().reason.name", "AbortSignal.abort(1).reason", "new Promise((r) => { AbortSignal.timeout(1).addEventListener('abort', (e) => r(e.target.reason.name)); setTimeout(r, 500); })", "AbortSignal.any([AbortSignal.abort(3)]).reason", "AbortSignal.abort(2).throwIfAborted()", "new AbortSignal()"],
  DOMException: ["new DOMException('m', 'AbortError').code", "new DOMException('m').name", "new DOMException('m', 'DataCloneError') instanceof Error"],
  // Texts and addresses.
  TextEncoder: ["new TextEncoder().encode('hé')", "new TextEncoder().encodeInto('héx', new Uint8Array(3))", "new TextEncoder().encoding"],
  TextDecoder: [`${text}(new Uint8Array([104, 195, 169]))`, "new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255]))", "new TextDecoder('latin1').decode(new Uint8Array([233]))", "(() => { const d = new TextDecoder(); return d.decode(new Uint8Array([195]), { stream: true }) + d.decode(new Uint8Array([169])); })()", "new TextDecoder('utf-16le').decode(new Uint8Array([104, 0]))", "new TextDecoder('no')"],
  TextEncoderStream: [`${read}(${of}.pipeThrough(new TextEncoderStream()))`],
  TextDecoderStream: [`${read}(new ReadableStream({ start(c) { c.enqueue(${bytes}); c.close(); } }).pipeThrough(new TextDecoderStream()))`],
  URL: ["new URL('../b?x=1#h', 'https://u:p@a.example:8080/c/d').href", "new URL('http://ex\\u00e4mple.com/').hostname", "URL.canParse('x:')", "new URL('no')", "(() => { const u = new URL('http://a/'); u.pathname = '/é'; u.searchParams.set('q', 'a b'); return u.href; })()", "URL.parse('http://a/')?.href"],
  URLSearchParams: ["[...new URLSearchParams('a=1&b=2&a=3')]", "new URLSearchParams({ a: 'b c', d: '&' }).toString()", "new URLSearchParams('a=1&a=2').getAll('a')", "new URLSearchParams('a=1').size", "new URLSearchParams('a=1&a=2').has('a', '2')"],
  URLPattern: ["typeof URLPattern"],
  // Bytes and files.
  Blob: ["new Blob(['ab', new Uint8Array([99])]).size", "new Blob(['ab']).text()", "new Blob(['abc'], { type: 'Text/Plain' }).slice(1, 2, 'a/b').type", "new Blob(['ab']).arrayBuffer()"],
  File: ["new File(['ab'], 'a.txt', { type: 'text/plain', lastModified: 5 }).name", "new File(['ab'], 'a').size"],
  FormData: ["(() => { const f = new FormData(); f.append('a', '1'); f.append('a', '2'); return [...f]; })()", "(() => { const f = new FormData(); f.set('a', new Blob(['x'])); return f.get('a').name; })()"],
  CompressionStream: [`${read}(new Blob(['aaaa']).stream().pipeThrough(new CompressionStream('gzip')).pipeThrough(new DecompressionStream('gzip')).pipeThrough(new TextDecoderStream()))`, "new CompressionStream('no')"],
  DecompressionStream: ["typeof new DecompressionStream('deflate').readable.getReader"],
  // Streams.
  ReadableStream: [`${read}(${of})`, `(async () => { const [a, b] = ${of}.tee(); return [await ${read}(a), await ${read}(b)]; })()`, `${of}.locked`, `(async () => { const r = ${of}.getReader(); return [await r.read(), await r.read(), await r.read()]; })()`, "new Promise((r) => new ReadableStream({ cancel: r }).cancel('why'))", "ReadableStream.from([1, 2]).getReader().read()", "new ReadableStream({ type: 'bytes' }).getReader({ mode: 'byob' }).constructor.name"],
  ReadableStreamDefaultReader: [`new ReadableStreamDefaultReader(${of}).read()`],
  ReadableStreamBYOBReader: ["typeof ReadableStreamBYOBReader"],
  ReadableStreamBYOBRequest: ["typeof ReadableStreamBYOBRequest"],
  ReadableStreamDefaultController: ["new Promise((r) => new ReadableStream({ start(c) { r(c.desiredSize); } }))"],
  ReadableByteStreamController: ["typeof ReadableByteStreamController"],
  WritableStream: ["(async () => { const a = []; const w = new WritableStream({ write: (c) => void a.push(c) }).getWriter(); await w.write(1); await w.close(); return a; })()"],
  WritableStreamDefaultWriter: ["typeof WritableStreamDefaultWriter"],
  WritableStreamDefaultController: ["typeof WritableStreamDefaultController"],
  TransformStream: [`${read}(${of}.pipeThrough(new TransformStream({ transform(c, t) { t.enqueue(c + c); } })))`],
  TransformStreamDefaultController: ["typeof TransformStreamDefaultController"],
  ByteLengthQueuingStrategy: ["new ByteLengthQueuingStrategy({ highWaterMark: 3 }).size(new Uint8Array(2))"],
  CountQueuingStrategy: ["new CountQueuingStrategy({ highWaterMark: 3 }).highWaterMark"],
  // HTTP.
  Headers: ["[...new Headers([['B', '1'], ['a', '2'], ['b', '3']])]", "(() => { const h = new Headers(); h.append('set-cookie', 'a'); h.append('set-cookie', 'b'); return h.getSetCookie(); })()", "new Headers({ 'a b': 'c' })", "new Headers({ a: ' x ' }).get('A')"],
  Request: ["new Request('http://a/', { method: 'post', body: 'x' }).text()", "new Request('http://a/b').url", "new Request('http://a/', { body: 'x' })", "new Request('http://a/', { method: 'PUT', body: '{\"a\":1}' }).json()"],
  Response: ["new Response('x', { status: 201 }).status", "new Response('{\"a\":1}').json()", "Response.json({ a: 1 }).headers.get('content-type')", "new Response('x').headers.get('content-type')", "Response.redirect('http://a/', 301).headers.get('location')", "new Response(null, { status: 99 })", "new Response('ab').arrayBuffer()", "Response.error().type", "new Response('x').clone().text()"],
  fetch: ["typeof fetch", "fetch('data:text/plain,hi').then((r) => r.text())"],
  // Cryptography.
  crypto: ["crypto.getRandomValues(new Uint8Array(4)).length", "/^[0-9a-f]{8}-[0-9a-f]{4}-4/.test(crypto.randomUUID())", "typeof crypto.subtle", "Object.keys(crypto)"],
  Crypto: ["typeof Crypto", "crypto instanceof Crypto"],
  CryptoKey: ["typeof CryptoKey"],
  SubtleCrypto: [`(async () => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', ${bytes}))).slice(0, 4))()`, "crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']).then((k) => k.type)"],
};

const all = Object.entries(table).flatMap(([name, expressions]) => expressions.map((one) => `/* ${name} */ ${one}`));
await run(all);
