// Expressions that have to give the same in the component as in Node, or to end the run there.
//
//     node expressions.mjs          each expression with what Node gives, a line of JSON for each
//     node expressions.mjs PROGRAM  writes a function that evaluates `event`, an expression, in the same way

import { run } from "./harness.mjs";

const q = JSON.stringify;
const all = new Set();
const add = (...expressions) => expressions.forEach((expression) => all.add(expression));

// Dates.
const TIMES = [0, -1, 1e12, 1720000000123, -2208988800000, 8.64e15, 951782400000, NaN];
for (const time of TIMES) {
  for (const method of ["toString", "toISOString", "toUTCString", "toDateString", "toTimeString", "toJSON", "getDay", "getTimezoneOffset",
    "getHours", "getYear", "toLocaleString", "toLocaleDateString", "toLocaleTimeString", "valueOf"]) add(`new Date(${time}).${method}()`);
  add(`String(new Date(${time}))`, `new Date(${time}) + 1`, `new Date(${time}) - 1`, `\`\${new Date(${time})}\``, `JSON.stringify({ d: new Date(${time}) })`);
  add(`new Date(${time}).toLocaleDateString("en-CA")`, `new Date(${time}).toLocaleString("de-DE", { timeZone: "Europe/Berlin" })`);
}
for (const text of ["2024-01-05", "2024-01-05T10:00", "2024-01-05T10:00Z", "2024-01-05T10:00:00.123+02:00", "2024-1-5", "Jan 5 2024", "5 January 2024 10:00 GMT",
  "2024-01-05 10:00", "Fri, 05 Jan 2024 09:00:00 GMT", "Fri Jan 05 2024 09:00:00 GMT+0100 (CET)", "2024", "2024-13-01", "2024-02-30", "x", "", "12/25/1995",
  "+275760-09-13T00:00:00.000Z", "-000001-01-01T00:00:00Z", "2024-01-05T24:00:00Z", "2024-01-05T10:00:00.1234567Z", "20240105", "2024-01-05T10", "1995-12-17T03:24:00", "2024-06-01T12:00:00z"]) {
  add(`Date.parse(${q(text)})`, `new Date(${q(text)}).getTime()`);
}
add("Date.UTC(2024)", "Date.UTC(99, 0)", "new Date(2024, 0, 31, 12).getTime()", "new Date(0, 0).getFullYear()", "typeof Date()", "new Date(new Date(5)).getTime()",
  "Object.prototype.toString.call(new Date(0))", "new Date(2024, 1, 29).getDate()", "new (class extends Date {})(0) instanceof Date", "new (class A extends Date { x() { return 1; } })(0).x()",
  "Date.length", "Date.name", "new Date(0).constructor === Date", "Date.prototype.constructor === Date", "new Date(undefined).getTime()", "new Date(null).getTime()", "new Date(true).getTime()",
  "(() => { const d = new Date(0); d.setMonth(13); return d.getTime(); })()", "new Date(2019, 0, 1).getTimezoneOffset()", "new Date(0)[Symbol.toPrimitive]('number')");

// Numbers.
for (const number of [0, -0, 1, 1.5, -1.005, 123456.789, 1e21, 1e-7, 0.000001, 5e-324, 1.7976931348623157e308, NaN, Infinity, 255, 0.1 + 0.2, 4.35, 1.45, 10.235, 1e300, 123.456]) {
  const text = Object.is(number, -0) ? "-0" : String(number);
  for (const digits of [0, 1, 2, 10]) add(`(${text}).toFixed(${digits})`, `(${text}).toExponential(${digits})`, `(${text}).toPrecision(${digits + 1})`);
  for (const radix of [2, 8, 16, 36]) add(`(${text}).toString(${radix})`);
  add(`String(${text})`, `(${text}).toLocaleString()`, `(${text}).toLocaleString("de-DE")`, `Number(${q(text)})`, `parseFloat(${q(text)})`, `parseInt(${q(text)}, 10)`);
  for (const name of Object.getOwnPropertyNames(Math).filter((name) => typeof Math[name] === "function" && name !== "random")) {
    // The standard leaves their last digits to each engine.
    if (name !== "pow" && name !== "tanh") add(`Math.${name}(${text}, 3)`, `Math.${name}(${text})`);
  }
}
add("(1234.5).toLocaleString('en-US', { style: 'currency', currency: 'USD' })", "12345678901234567890n.toLocaleString()", "10n ** 30n", "BigInt.asIntN(8, 255n)", "-7n / 2n",
  "(123n).toString(36)", "BigInt('0x1f')", "0.1 * 3", "1 / 3", "2 ** 53 + 1", "parseInt('0x1f')", "Number('1_000')", "Number('')", "Number(' 12 ')", "Number('1e1000')", "(25).toString(36)",
  "Number.parseFloat('3.14abc')", "[1, 10, 2].sort()", "Number.MAX_SAFE_INTEGER + 2", "~~-5.7", "5.5 % 2", "-5 % 3", "[0.1, 0.7, 0.2].reduce((a, b) => a + b)");

// Texts.
const TEXTS = ["", "abc", "ÀÉî", "straße", "İstanbul", "a\u0301", "😀x", "\ud83d", "  x\t", "ß", "ǆ", "Ω", "ａ", "line\nbreak", "日本語"];
for (const text of TEXTS) {
  const t = q(text);
  for (const call of ["length", "toUpperCase()", "toLowerCase()", "normalize()", "normalize('NFD')", "normalize('NFKC')", "trim()", "split('')", "at(-1)", "codePointAt(0)", "isWellFormed()",
    "toWellFormed()", "padStart(5, 'ab')", "repeat(2)", "replace(/./gu, '<$&>')", "match(/\\p{L}/gu)", "localeCompare('b')", "toLocaleUpperCase()", "toLocaleUpperCase('tr')", "charCodeAt(0)", "slice(-2)",
    "replaceAll('a', '$&$&')", "search(/[^a-z]/)", "lastIndexOf('x')", "substring(2, 0)", "concat(1, null)", "anchor('a\"b')"]) add(`${t}.${call}`);
  add(`[...${t}]`, `encodeURIComponent(${t})`, `escape(${t})`, `JSON.stringify(${t})`, `btoa(${t})`, `new TextEncoder().encode(${t})`, `Buffer.from(${t})`, `Buffer.byteLength(${t})`,
    `Array.from(${t}, (c) => c.codePointAt(0))`, `${t} < "b"`);
  for (const encoding of ["utf8", "hex", "base64", "base64url", "latin1", "binary", "ascii", "utf16le", "ucs2", "nonsense"]) {
    add(`Buffer.from(${t}, ${q(encoding)})`, `Buffer.from(${t}).toString(${q(encoding)})`, `Buffer.byteLength(${t}, ${q(encoding)})`);
  }
}
add("'abc'.localeCompare('abc')", "['b', 'a', 'C'].sort((a, b) => a.localeCompare(b))", "'a-b_c'.split(/[-_]/)", "'x'.padEnd(3)", "'aXbX'.split('X', 1)", "String.raw`\\n${1}`", "'abc'.replace('b', (m, i) => i)",
  "'2024-05-06'.replace(/(?<y>\\d+)-(?<m>\\d+)/, '$<m>/$<y>')", "'a1b2'.matchAll(/\\d/g).next().value[0]", "'\\u212b'.normalize()", "'ﬁ'.normalize('NFKD')", "'I'.toLocaleLowerCase('tr')", "'a\\0b'.length",
  "decodeURIComponent('%E4%BD%A0')", "decodeURIComponent('%')", "decodeURI('%2F')", "unescape('%u4F60%20')", "encodeURI('http://a/ü?x=1#y')", "encodeURIComponent('\\ud800')", "atob('aGk=')", "atob('aGk')", "atob('a')", "atob(' a G k = ')", "atob('aGk*')", "btoa('ÿ')", "btoa('日')", "atob('')");

// Patterns.
for (const [pattern, text] of [["/(a)|(b)/g", "ab"], ["/(?<=\\$)\\d+/", "$42"], ["/(?<!a)b/", "bb"], ["/^\\p{Lu}/u", "Éa"], ["/[\\p{L}--[a-z]]/v", "aB"], ["/\\bfoo\\b/i", "a FOO b"], ["/(\\d+)\\s\\1/", "42 42"],
  ["/a.c/s", "a\nc"], ["/^b/m", "a\nb"], ["/x*?y/y", "xxy"], ["/\\u{1F600}/u", "😀"], ["/[^]/", ""], ["/(?:)/", "abc"], ["/(?=(a+))a*b\\1/", "baaabac"], ["/ſ/iu", "S"], ["/\\w+@\\w+\\.\\w+/", "me@x.org"],
  ["/(?<year>\\d{4})/d", "in 2024"], ["/[\\w.]+/g", "a.b c"], ["/\\cJ/", "\n"], ["/^[\\s\\u200b]*$/", " \u00a0\ufeff"], ["/\\p{Script=Greek}/u", "Ω"], ["/\\p{Emoji}/u", "😀"], ["/\\p{RGI_Emoji}/v", "👨‍👩‍👧"], ["/a{2,}/", "aaa"], ["/[[a-z]&&[aeiou]]/v", "xe"]]) {
  add(`(() => { const m = (${pattern}).exec(${q(text)}); return m && [...m, m.index, m.groups && { ...m.groups }]; })()`, `${q(text)}.replace(${pattern}, "[$&]")`, `${q(text)}.split(${pattern})`, `String(${pattern})`);
}
add("new RegExp('[')", "new RegExp('(?<a>.)(?<a>.)')", "new RegExp('a', 'gg')", "new RegExp('\\\\p{Nope}', 'u')", "RegExp('a/b').source", "new RegExp('').source", "/a/g.flags", "RegExp.prototype.toString.call(/a/)", "/a/ instanceof RegExp",
  "RegExp(/a/) instanceof RegExp", "new RegExp(/a/g, 'i').flags", "RegExp.length", "/a/.constructor === RegExp", "RegExp.$1", "class extends RegExp {}.name", "new (class A extends RegExp { test() { return 5; } })('a').test('b')", "/[/]/.source", "/\\//.source", "/(?:a|ab)(?:c|bcd)(?:d*)/.exec('abcd')[0]");

// Bytes.
const BYTES = [[], [104, 105], [0, 255, 128, 1, 2, 3, 4, 5], [0xe2, 0x82, 0xac], [0xe2, 0x82], [0xef, 0xbb, 0xbf, 65], [0xff, 0xfe, 65, 0], [226, 40, 161], [0xf0, 0x9f, 0x98, 0x80], [0xed, 0xa0, 0x80], [0x80], [0xc3, 0x28], [99, 233], [0xf4, 0x90, 0x80, 0x80]];
for (const bytes of BYTES) {
  const b = q(bytes);
  for (const label of ["utf-8", "UTF8", "latin1", "utf-16le", "utf-16be", "windows-1251", "shift_jis", "nonsense"]) {
    add(`new TextDecoder(${q(label)}).decode(new Uint8Array(${b}))`);
    add(`new TextDecoder(${q(label)}, { fatal: true }).decode(new Uint8Array(${b}))`);
  }
  add(`new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(${b}))`);
  add(`(() => { const d = new TextDecoder(); let t = ""; for (const x of ${b}) t += d.decode(new Uint8Array([x]), { stream: true }) + "|"; return t + d.decode(); })()`);
  for (const encoding of ["utf8", "hex", "base64", "base64url", "latin1", "ascii", "utf16le", "binary", "UCS-2"]) add(`Buffer.from(${b}).toString(${q(encoding)})`, `Buffer.from(${b}).toString(${q(encoding)}, 1, 3)`);
  for (const call of ["toJSON()", "readUInt16BE(0)", "readInt32LE(0)", "readDoubleLE(0)", "readBigUInt64BE(0)", "readUIntBE(0, 3)", "readFloatBE(1)", "swap16()", "reverse()", "indexOf(128)", "includes('i')", "slice(1)",
    "subarray(1, 3)", "equals(Buffer.from([104, 105]))", "compare(Buffer.from([104]))", "lastIndexOf(1)", "fill('ab')", "fill(7, 1)", "write('zz', 1)", "writeUInt16LE(513, 0)", "copy(Buffer.alloc(4))", "length", "byteOffset >= 0", "keys().next()", "readInt8(9)",
    "writeUInt8(300, 0)", "inspect()", "toLocaleString()", "latin1Slice(0)", "readUInt32BE(0)", "at(-1)", "map((x) => x + 1)", "concat", "join('-')", "utf8Slice()", "swap32()"]) add(`Buffer.from(${b}).${call}`);
  add(`JSON.stringify({ b: Buffer.from(${b}), u: new Uint8Array(${b}) })`, `new Uint8Array(${b}).toString()`, `Buffer.from(new Uint8Array(${b}).buffer)`, `structuredClone(Buffer.from(${b}))`, `Buffer.concat([Buffer.from(${b}), Buffer.from([1])])`, `new DataView(new Uint8Array(${b}).buffer).byteLength`);
}
add("Buffer.alloc(4, 'ab')", "Buffer.alloc(3, 1)", "Buffer.alloc(2, '')", "Buffer.alloc(-1)", "Buffer.from('aGVs\\nbG8=\\n', 'base64').toString()", "Buffer.from('abc', 'hex')", "Buffer.from('a-_b', 'base64')", "Buffer.from({ length: 2, 0: 1, 1: 2 })",
  "Buffer.from(5)", "Buffer.from(null)", "Buffer.isBuffer(new Uint8Array())", "Buffer.isEncoding('UTF-8')", "Buffer.isEncoding('x')", "Buffer.compare(Buffer.from('a'), Buffer.from('b'))", "Buffer.concat([Buffer.from('a'), Buffer.from('b')], 1)",
  "Buffer.from([256, -1, 1.5, 'x'])", "Buffer.from('héllo').length", "Buffer.from('x').toString('nope')", "Buffer.from(Buffer.from('ab'))", "Buffer.from(new ArrayBuffer(4), 1, 2).length", "Buffer.poolSize", "Buffer.from('é', 'latin1')", "Buffer.from('😀').toString('utf8', 0, 2)",
  "(() => { const b = Buffer.alloc(8); b.writeDoubleBE(1.5); return b; })()", "(() => { const b = Buffer.alloc(8); b.writeBigInt64LE(-2n); return b; })()", "(() => { const b = Buffer.from('abc'); b[0] = 300; return b; })()", "Buffer.from('ab') + ''", "Buffer.from('ab') instanceof Uint8Array", "typeof Buffer.from('a').buffer",
  "Buffer('x')", "new Buffer(2)", "Buffer.from('7468697', 'hex')", "Buffer.from('test').fill('é').toString()", "Buffer.from(new String('x'))", "Buffer.from('abc').toString(undefined, 1)", "Object.keys(Buffer.from('ab'))", "Buffer.from('abcabc').indexOf('c', -2)", "Buffer.from('abc').indexOf('')", "Buffer.from([1,2,3]).readUIntLE(0, 7)", "Buffer.copyBytesFrom(new Uint16Array([1, 2]))");

// Addresses.
for (const url of ["http://a.com", "http://a.com/", "HTTP://A.com:80/x/../y?q=1#f", "https://u:p@a.com:8443/p a/ü?q=a b&c=%zz#h h", "http://münchen.de/", "http://xn--mnchen-3ya.de", "http://a:99999/", "http://[::1]:3000/", "http://192.168.1", "http://0x7f.1/", "file:///a/b/../c",
  "mailto:me@x.org", "data:text/plain,hi", "javascript:alert(1)", "//a.com/x", "/x", "?q", "", "a", "http://", "http:///x", "http://a.com/x/%2e%2e/y", "ws://a.com:80", "ftp://a.com:21/x", "http://a.com/\\x", "http://a b.com", "http://a.com?x=é", "blob:http://a.com/1", "http://a.com:/", "http://a..b/", "http://1.2.3.4.5/", "http://a.com/a;b=c", "urn:isbn:123", "http://user@/x", "http://a.com/%", "http://EXAMPLE.com/%7Efoo", "https://a.com/\u0000", " http://a.com/ ", "http://a\tb.com"]) {
  const u = q(url);
  for (const part of ["href", "host", "hostname", "port", "pathname", "search", "hash", "origin", "protocol", "username", "password", "toJSON()", "searchParams.get('q')"]) add(`new URL(${u}).${part}`);
  add(`new URL(${u}, "http://base.test/a/b?c#d").href`, `URL.canParse(${u})`);
}
for (const change of ["pathname = 'a b'", "hash = 'x'", "search = 'é'", "host = 'b.com:81'", "hostname = 'c'", "port = '80'", "port = 'x'", "protocol = 'https'", "protocol = 'foo'", "username = 'a:b'", "href = 'https://z/'", "href = 'x'", "search = ''", "host = ''", "pathname = '../x'", "hash = ''", "searchParams = 1"]) {
  add(`(() => { const u = new URL("http://a.com/p?q=1"); u.${change}; return u.href; })()`);
}
for (const init of ["'a=1&a=2&b=%20+x'", "'?a=1'", "{ a: 1, b: 'x y' }", "[['a', 'b'], ['c', 'd']]", "new Map([['k', 'v']])", "''", "undefined", "'a'", "'=b'", "'&&a=1&'", "'%zz=%E4'", "[['a']]", "'é=ü'", "null", "5"]) {
  for (const call of ["toString()", "get('a')", "getAll('a')", "has('a', '1')", "size", "delete('a', '1')", "[Symbol.iterator]().next()", "keys().next()", "sort()"]) add(`new URLSearchParams(${init}).${call}`);
  add(`(() => { const p = new URLSearchParams(${init}); p.append("z", "é &"); p.set("a", "9"); p.delete("b"); p.sort(); return String(p); })()`, `[...new URLSearchParams(${init})]`);
}
add("(() => { const u = new URL('http://a.com/?q=a+b%20c'); u.searchParams.append('r', 'é &'); return [u.searchParams.get('q'), u.search]; })()", "JSON.stringify(new URL('http://a/'))", "String(new URL('http://a/b'))", "new URL('http://a') instanceof URL", "Object.keys(new URL('http://a'))", "new URL()", "URL.parse?.('x')", "Object.prototype.toString.call(new URL('http://a'))", "Object.prototype.toString.call(new URLSearchParams())");

// Values.
for (const value of ["1", "'x'", "null", "undefined", "[1, [2]]", "{ a: 1, b: { c: [1] } }", "new Map([[1, { a: 1 }]])", "new Set([1])", "new Date(5)", "/a/gi", "new Error('x')", "new TypeError('x', { cause: 1 })", "new Uint8Array([1, 2])", "new Uint8Array([1, 2, 3]).subarray(1)", "new DataView(new ArrayBuffer(2))", "new ArrayBuffer(2)", "Object(1)", "Object('x')", "10n", "() => 1", "Symbol()",
  "new (class A { x = 1 })()", "Object.create({ a: 1 })", "[, 1]", "Promise.resolve(1)", "new WeakMap()", "new URL('http://a')", "{ get a() { return 1; } }", "new Int16Array([1])", "Object(Symbol())", "new RangeError('r')"]) {
  add(`structuredClone(${value})`, `structuredClone({ v: ${value} })`, `JSON.stringify(${value})`, `JSON.stringify({ v: ${value} }, null, 2)`, `String(${value})`, `typeof ${value}`, `Object.prototype.toString.call(${value})`);
}
add("JSON.parse('{\"a\":1,\"__proto__\":2}')", "JSON.parse('[1,]')", "JSON.parse('')", "JSON.parse('1e400')", "JSON.parse('\"\\\\ud800\"')", "JSON.parse('{\"a\":1}', (k, v) => k ? v + 1 : v)", "JSON.stringify({ a: undefined, b: () => 1, c: NaN, d: -0 })", "JSON.stringify([undefined, Symbol()])", "JSON.stringify('\\ud800')", "JSON.stringify({ a: [1, 2] }, ['a'], '\\t')", "JSON.stringify(1n)", "JSON.stringify({ toJSON() { return 5; } })",
  "[3, 1, 2].toSorted()", "[1, 2, 3].with(1, 9)", "[1, 2, 3].findLast((x) => x < 3)", "[1, [2, [3]]].flat(Infinity)", "Array.from({ length: 3 }, (_, i) => i)", "[1, 2, 3].at(-1)", "[..., 1]", "Object.entries({ b: 1, a: 2, 1: 3 })", "Object.fromEntries([['a', 1]])",
  "[5, 25, 100, 1].sort()", "[,'a'].findIndex((x) => x === undefined)", "[1, 2, 3].copyWithin(0, 1)", "new Array(3).fill().map((_, i) => i)", "[3, 2, 1].sort((a, b) => a - b)", "Array(5).join('-')", "[1, 2, 3].toString()", "[1.5, 2].toLocaleString()", "['x'].toLocaleString()", "Array.isArray(new Proxy([], {}))", "new Intl.NumberFormat('en').format(1)", "typeof Intl", "typeof fetch", "typeof WebAssembly", "typeof require", "typeof module", "typeof globalThis", "typeof window", "typeof document", "typeof self", "typeof Deno", "typeof navigator",
  "process.version", "process.versions.node", "process.versions.v8", "process.platform", "process.arch", "process.pid > 0", "process.title", "process.memoryUsage().rss > 0", "process.release.name", "process.argv.length > 0", "process.env.NOPE", "(process.env.A = 1, process.env.A)", "(process.env.A = undefined, process.env.A)", "process.hrtime().length", "typeof process.hrtime.bigint()", "process.uptime() > 0", "typeof process.cwd()", "process.exitCode", "process.on('exit', () => {}) === process", "process.emitWarning.name", "process.nextTick.length", "process.stdout.isTTY", "process.umask()", "process.getuid() >= 0", "process.execPath.length > 0", "process.config.variables", "process.features.inspector",
  "setTimeout(() => {}, 1).hasRef()", "typeof setTimeout(() => {}, 1)", "typeof setTimeout(() => {}, 1)[Symbol.toPrimitive]()", "setTimeout('x')", "clearTimeout(undefined)", "clearTimeout({})", "new Promise((done) => setTimeout(done, 1, 'late'))", "new Promise((done) => setImmediate(done, 5))", "(async () => { const seen = []; setTimeout(() => seen.push('t'), 2); queueMicrotask(() => seen.push('m')); await new Promise((done) => setTimeout(done, 8)); return seen; })()", "new Promise((done) => { let n = 0; const i = setInterval(() => { if (++n === 3) { clearInterval(i); done(n); } }, 1); })",
  "new Error('x').stack.split('\\n')[0]", "new TypeError('a\\nb').stack.split('\\n').slice(0, 2)", "(() => { const e = new Error('a'); e.message = 'b'; return e.stack.split('\\n')[0]; })()", "Object.getOwnPropertyNames(new Error('x')).includes('message')", "new Error('x', { cause: 1 }).cause", "new AggregateError([1], 'x').errors", "(() => { const o = {}; Error.captureStackTrace(o); return typeof o.stack; })()", "Error.stackTraceLimit", "String(new RangeError('x'))", "new DOMException('m', 'AbortError').name", "new DOMException('m', 'AbortError').code", "new DOMException('m') instanceof Error", "Error('x') instanceof Error",
  "(() => { class A extends Error { constructor(m) { super(m); this.name = 'A'; } } return String(new A('x')); })()", "performance.now() > 0", "typeof performance.timeOrigin", "performance.timeOrigin > 1e12", "performance.mark('a').name", "crypto.randomUUID().length", "crypto.getRandomValues(new Uint8Array(4)).length", "crypto.getRandomValues(new Float32Array(1))", "crypto.getRandomValues(new Uint8Array(65537))", "typeof crypto.subtle.digest", "new Headers({ A: '1' }).get('a')", "new AbortController().signal.aborted", "new Blob(['x']).size", "new FormData()", "new EventTarget()", "new Event('x').type", "new Response('x').status", "new Request('http://a/').method", "new ReadableStream() instanceof ReadableStream", "new WritableStream()", "new TransformStream()", "new CompressionStream('gzip')", "new BroadcastChannel('x')", "new MessageChannel()", "new WebSocket('ws://x')", "Atomics.add(new Int32Array(1), 0, 1)", "new SharedArrayBuffer(1).byteLength", "new WeakRef({}).deref() !== undefined", "globalThis === global", "console.table([1])", "console.dir({}, { depth: 0 })", "typeof console.Console", "queueMicrotask(1)", "structuredClone()", "eval('1 + 1')", "new Function('a', 'return a + 1')(1)", "String(function f(a, b) { return a; })", "(function () { return typeof this; }).call(5)", "new TextEncoder().encodeInto('é', new Uint8Array(4))", "new TextEncoder().encoding", "new TextDecoder('UTF-8').encoding", "new TextDecoder('latin1').encoding", "new TextDecoder().decode('x')", "new TextDecoder().decode(new Uint16Array([65]))", "Object.getOwnPropertyNames(Math).length > 30", "isNaN('x')", "label: 1", "[] + {}", "[10, 1, 3].map(parseInt)", "0.1 + 0.2 === 0.3", "typeof null", "void 0", "new Array(-1)", "null.x", "undefinedName", "(1).x.y", "Reflect.ownKeys({ b: 1, 2: 1, a: 1, [Symbol.iterator]: 1 }).length", "Array.prototype.concat.call(1, 2).length", "[..'ab']", "'use strict'; 010", "((a, b = 2, ...c) => 1).length", "(() => {}).name", "new (class { static x = 1 })().constructor.x", "(async () => 1)() instanceof Promise", "(function* () { yield 1; })().next()", "Number('0b11')", "`a${1}b`", "[...new Set([1, 1])]", "Object.is(-0, 0)", "new Date(8.64e15 + 1).getTime()", "Math.max()", "Math.min()", "Math.round(-0.5)", "Math.round(2.5)", "Math.hypot(3, 4)", "(-8) ** (1 / 3)", "[1, 2, 3].includes(NaN)", "[NaN].includes(NaN)", "[NaN].indexOf(NaN)");

await run(all);
