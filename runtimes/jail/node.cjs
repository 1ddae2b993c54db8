// The JavaScript side of the jail: serves one program's calls in a process that was jailed before it started.
//
// What goes over descriptor 3 is told in ports/sandbox/src/runner.rs. Reads between calls block on purpose: the process is
// frozen, its timers too.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const CHANNEL = 3;
const FUNCTION = '/function';
const STACK_MAX = 16 * 1024;
const CHUNK_MAX = 64 * 1024;
const GREETING = '{"protocol":1}';

let handler = null;
let settings = null;
let failCall = null;
// The secret of the present question: what an earlier call left behind sends nothing more.
let asked = null;

function take(count) {
  const buffer = Buffer.allocUnsafeSlow(count);
  let filled = 0;
  while (filled < count) {
    const got = fs.readSync(CHANNEL, buffer, filled, count - filled);
    if (got === 0) process.reallyExit(0);
    filled += got;
  }
  return buffer;
}

function receive() {
  const frame = take(take(4).readUInt32LE(0));
  return { secret: frame.subarray(0, 16), kind: frame.toString('latin1', 16, 17), payload: frame.toString('utf8', 17) };
}

function send(secret, [kind, payload]) {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'utf8') : payload;
  const frame = Buffer.allocUnsafe(21 + body.length);
  frame.writeUInt32LE(17 + body.length, 0);
  secret.copy(frame, 4);
  frame.write(kind, 20, 'latin1');
  body.copy(frame, 21);
  for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(CHANNEL, frame, sent, frame.length - sent);
}

function refuse(reason, message, stack = '') {
  return ['E', JSON.stringify({ code: `function.${reason}`, message: message.slice(0, 2000), stack })];
}

async function load(program) {
  settings = program;
  for (const key of Object.keys(process.env)) delete process.env[key];
  Object.assign(process.env, program.env);
  const entry = path.join(FUNCTION, program.file);
  if (!fs.existsSync(entry)) return refuse('no_handler', `the bundle has no file ${program.file}`);
  process.argv = [process.argv[0], entry];
  process.chdir(FUNCTION);
  let module;
  try {
    module = await Promise.race([import(pathToFileURL(entry).href), failure()]);
  } catch (error) {
    return whyNotLoaded(error, entry);
  } finally {
    failCall = null;
  }
  handler = module[program.function] ?? module.default?.[program.function];
  if (program.function === 'default' && typeof handler !== 'function') handler = module.default?.handler ?? module.handler;
  if (typeof handler === 'function') return ['D', ''];
  return refuse('no_handler', `${program.file} has no function as its export \`${program.function}\``);
}

function whyNotLoaded(error, entry) {
  if (error instanceof SyntaxError) {
    const place = placeOfSyntaxError(entry);
    if (place) return refuse('syntax_error', `${place}: ${error.message}`);
  }
  const { type, message, stack } = describe(error);
  return refuse('load_failed', `${type}: ${message}`, stack);
}

// An error of the parser carries no place for modules, but a fresh process prints it. Nothing of the program runs there
// that did not run here: parsing and linking come before running.
function placeOfSyntaxError(entry) {
  const { spawnSync } = require('node:child_process');
  const told = spawnSync(process.execPath, ['--no-warnings', entry], { encoding: 'utf8', timeout: 5000, env: {} });
  const found = /^(?:file:\/\/)?\/function\/([^\n]*):(\d+)$/m.exec(told.stderr ?? '');
  return found && told.stderr.includes('SyntaxError') ? `${found[1]} line ${found[2]}` : null;
}

function failure() {
  return new Promise((_, reject) => {
    failCall = reject;
  });
}

// Connections end with each call, and their sockets hear of it only when the event loop turns: before a pooled one is used.
async function forgetOldConnections() {
  for (let turn = 0; turn < 2; turn++) await new Promise((done) => setImmediate(done));
}

async function call(secret, { job_id, deadline_ms, parameters, event, body: has_body }) {
  const body = has_body ? new Body(secret) : null;
  const context = { job_id, function: settings.name, version: settings.version, deadline_ms, parameters, body: body?.stream ?? null };
  let value;
  if (settings.network) await forgetOldConnections();
  try {
    value = handler(event, context);
    if (value instanceof Promise || typeof value?.then === 'function') value = await Promise.race([value, failure()]);
    const stream = streamIn(value);
    if (stream) {
      await Promise.race([pour(secret, stream), failure()]);
      return ['S', ''];
    }
  } catch (error) {
    if (error instanceof Invalid) return ['I', text(error.message).slice(0, 1000)];
    return ['R', JSON.stringify(describe(error))];
  } finally {
    failCall = null;
    asked = null;
    if (body) await body.leave();
  }
  return encode(value);
}

// The function's answer is none, with a sentence.
class Invalid extends Error {}

// What is given piece by piece: something to iterate over asynchronously (a ReadableStream, a stream of Node, a generator),
// or an iterator. Neither has a JSON form.
function chunksIn(value) {
  if (typeof value !== 'object' || value === null) return null;
  const iterates = typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function';
  return iterates || typeof value[Symbol.asyncIterator] === 'function' ? value : null;
}

// Head and chunks where the value is a streamed answer, else null. The class `Response` is not looked at: it takes Node
// milliseconds to make it where nobody has used it yet.
function streamIn(value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  if (value[Symbol.toStringTag] === 'Response') return { status: value.status, headers: headerPairs(value.headers), chunks: value.body ?? [] };
  const bare = chunksIn(value);
  if (bare) return { status: 0, headers: [], chunks: bare };
  const chunks = chunksIn(value.body);
  return chunks && { ...headOf(value), chunks };
}

function headOf({ body, status, headers, ...others }) {
  for (const key of Object.keys(others)) throw new Invalid(`a streamed answer has status, headers and body, and no \`${key}\``);
  if (!Number.isInteger(status)) throw new Invalid('a streamed answer with a body has a whole number as its status');
  return { status, headers: headerPairs(headers ?? []) };
}

// From an object, from pairs, or from `Headers`; a value that is a list stands for several of that name.
function headerPairs(headers) {
  const pairs = [];
  for (const [name, value] of typeof headers[Symbol.iterator] === 'function' ? headers : Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (typeof one !== 'string' && typeof one !== 'number') throw new Invalid('headers are names with texts, numbers or lists of them');
      pairs.push([String(name), String(one)]);
    }
  }
  return pairs;
}

// The head of an answer with a status is sent at once, else before the first chunk.
async function pour(secret, { status, headers, chunks }) {
  asked = secret;
  let head = JSON.stringify({ status, headers });
  const begin = () => {
    if (head !== null) send(secret, ['h', head]);
    head = null;
  };
  if (status) begin();
  for await (const value of chunks) {
    if (asked !== secret) return;
    const chunk = chunkOf(value);
    if (chunk.length) begin();
    for (let at = 0; at < chunk.length; at += CHUNK_MAX) send(secret, ['c', chunk.subarray(at, at + CHUNK_MAX)]);
  }
  if (asked === secret) begin();
}

// Text is UTF-8, bytes are bytes, anything else is a line of JSON.
function chunkOf(value) {
  if (typeof value === 'string') return Buffer.from(value, 'utf8');
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  let json;
  try {
    json = JSON.stringify(value ?? null);
  } catch (error) {
    throw new Invalid(`a chunk is neither text nor bytes nor JSON: ${error?.message}`);
  }
  if (json === undefined) throw new Invalid(`a chunk is neither text nor bytes nor JSON: a ${typeof value} has no JSON form`);
  return Buffer.from(json + '\n', 'utf8');
}

// The body of the request as a ReadableStream of Uint8Arrays. Parts are asked for one by one, and read while the event loop
// turns.
class Body {
  #secret;
  #reading = null;
  #left = false;

  constructor(secret) {
    this.#secret = secret;
    const source = { pull: (controller) => this.#pull(controller), cancel: () => this.#left || send(secret, ['Q', '']) };
    this.stream = new ReadableStream(source, { highWaterMark: 0 });
  }

  async #pull(controller) {
    if (this.#left) return controller.error(new Error('the call has ended, and the body of its request with it'));
    send(this.#secret, ['B', '']);
    this.#reading = receiveLater();
    const { kind, bytes } = await this.#reading;
    this.#reading = null;
    try {
      if (kind === 'b') controller.enqueue(new Uint8Array(bytes));
      else controller.close();
    } catch {
      // It was cancelled meanwhile.
    }
  }

  // Nothing of the body is in the channel afterwards.
  async leave() {
    this.#left = true;
    if (!this.#reading) return;
    send(this.#secret, ['Q', '']);
    await this.#reading;
  }
}

function takeLater(count) {
  const buffer = Buffer.allocUnsafeSlow(count);
  return new Promise((done) => {
    const more = (filled) => {
      if (filled === count) return done(buffer);
      fs.read(CHANNEL, buffer, filled, count - filled, null, (error, got) => {
        if (error || got === 0) process.reallyExit(0);
        more(filled + got);
      });
    };
    more(0);
  });
}

async function receiveLater() {
  const length = await takeLater(4);
  const frame = await takeLater(length.readUInt32LE(0));
  return { kind: frame.toString('latin1', 16, 17), bytes: frame.subarray(17) };
}

function encode(value) {
  let output;
  try {
    output = JSON.stringify(value ?? null) ?? null;
  } catch (error) {
    return ['I', `the output is not JSON: ${error?.message}`.slice(0, 1000)];
  }
  if (output === null) return ['I', `the output is not JSON: a ${typeof value} has no JSON form`];
  if (output.length > settings.output_bytes || Buffer.byteLength(output) > settings.output_bytes) return ['T', ''];
  return ['O', output];
}

function describe(error) {
  if (!(error instanceof Error)) return { type: typeof error, message: text(error), stack: '' };
  return { type: error.constructor?.name || error.name, message: text(error.message), stack: ownStack(error) };
}

function text(value) {
  try {
    return String(value).toWellFormed().slice(0, STACK_MAX);
  } catch {
    return '(the error has no text)';
  }
}

function ownStack(error) {
  const lines = text(error.stack).split('\n');
  return lines.filter((line) => !/^\s+at .*(\/runner\/|node:internal)/.test(line)).join('\n').slice(0, STACK_MAX);
}

function bytesToJson() {
  return { $bytes: Buffer.from(this.buffer, this.byteOffset, this.byteLength).toString('base64') };
}

for (const prototype of [Uint8Array.prototype, Buffer.prototype]) {
  Object.defineProperty(prototype, 'toJSON', { value: bytesToJson, configurable: true, writable: true });
}

function failOrDie(error) {
  if (failCall) return failCall(error);
  fs.writeSync(2, `<3>${text(error?.stack ?? error).replaceAll('\n', '\n<3>')}\n`);
  process.reallyExit(1);
}

// What goes to standard error is marked line by line, as syslog and systemd number severities; the agent takes marks off.
function markLevels() {
  let mark = '<3>';
  let within = false;
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = (chunk, ...rest) => {
    const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
    if (text === '') return true;
    const marked = (within ? '' : mark) + text.replace(/\n(?!$)/g, `\n${mark}`);
    within = !text.endsWith('\n');
    return write(marked, ...rest.filter((argument) => typeof argument === 'function'));
  };
  const warn = console.warn;
  console.warn = (...values) => {
    mark = '<4>';
    try {
      warn(...values);
    } finally {
      mark = '<3>';
    }
  };
  const { format } = require('node:util');
  const log = console.log;
  console.debug = (...values) => log(`<7>${format(...values).replaceAll('\n', '\n<7>')}`);
}
markLevels();

process.on('uncaughtException', failOrDie);
process.on('unhandledRejection', failOrDie);

async function serve() {
  // The first import sets up the module loader, which takes longer than all the rest: before the program comes.
  handler = (await import('/runner/warm.mjs')).default;
  settings = { name: '', version: 0, output_bytes: 1024 };
  await call(null, JSON.parse('{"job_id":"","deadline_ms":0,"parameters":null,"event":{"name":[1]}}'));
  send(Buffer.alloc(16), ['H', GREETING]);
  for (;;) {
    const { secret, kind, payload } = receive();
    const message = JSON.parse(payload);
    send(secret, kind === 'L' ? await load(message) : await call(secret, message));
  }
}

serve();
