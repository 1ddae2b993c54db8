// The JavaScript side of the jail: serves one program's calls in a process that was jailed before it started.
//
// What goes over descriptor 3 is told in ports/sandbox/src/runner.rs. Reads between calls block on purpose: the process is
// frozen, its timers too.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const CHANNEL = 3;
// In a container the channel is two pipes.
const OUT = process.argv.includes('--container') ? 4 : CHANNEL;
const FUNCTION = '/function';
const STACK_MAX = 16 * 1024;
const CHUNK_MAX = 64 * 1024;
const GREETING = '{"protocol":3}';

let handler = null;
let settings = null;
let failCall = null;
// The secret of the present question: what an earlier call left behind sends nothing more.
let asked = null;
// Has an adapter told, once in a call, that nobody reads its answer any more.
let watches = null;
// What keeps the event loop turning once the program is loaded: a call that leaves more behind is this instance's last.
let standing = 0;

// The adapters of contracts other than a handler's; loaded where they are needed.
const contracts = () => require('/runner/contracts/contracts.cjs');

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
  for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(OUT, frame, sent, frame.length - sent);
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
  const servers = [];
  Object.defineProperty(globalThis, 'awslambda', { configurable: true, get: () => contracts().awslambda() });
  // Node takes milliseconds to set up its network, which most programs do not need.
  const letListen = /\.listen\s*\(/.test(fs.readFileSync(entry, 'latin1')) ? contracts().catchServers(servers) : () => {};
  try {
    module = await Promise.race([import(pathToFileURL(entry).href), failure()]);
  } catch (error) {
    return whyNotLoaded(error, entry);
  } finally {
    failCall = null;
    letListen();
  }
  const answer = findHandler(module, program, servers);
  // What reading the modules has left is done after a turn.
  await new Promise((done) => setImmediate(done));
  standing = active();
  return answer;
}

// The function that is called, or the adapter of the contract that is named behind it. One that is found and not named is told
// to the agent, which asks again under its name.
function findHandler(module, program, servers) {
  const { adapter, found, named } = contracts();
  const [name, contract] = program.function.split('@');
  if (contract) {
    const target = named(module, name, servers);
    const about = { report, shapeOf, settings: program, withCallback, watch: (told) => watches?.(told) };
    handler = target === undefined ? null : adapter(contract, target, about);
    return handler ? ['D', ''] : refuse('no_handler', `${program.file} has nothing as \`${name}\` that keeps the contract \`${contract}\``);
  }
  const offer = found(module, program, servers);
  if (offer) return tellContract(program.file, offer);
  handler = module[name] ?? module.default?.[name];
  if (name === 'default' && typeof handler !== 'function') handler = module.default?.handler ?? module.handler;
  if (typeof handler === 'function') return ['D', ''];
  return refuse('no_handler', `${program.file} has no function as its export \`${name}\``);
}

function tellContract(file, { name, contract }) {
  const message = `${file} has no handler, and its export \`${name}\` keeps the contract \`${contract}\``;
  return ['E', JSON.stringify({ code: 'function.no_handler', message, stack: '', contract: `${file}:${name}@${contract}` })];
}

const workers = new Set();
process.on('worker', (worker) => {
  workers.add(worker);
  worker.once('exit', () => workers.delete(worker));
});

// What would make the event loop go on: timers, files, requests. Sockets end with the call, and pooled ones are no work; what was
// printed and not read yet is none either.
function active() {
  let count = workers.size;
  for (const name of process.getActiveResourcesInfo()) if (!/Pipe|TTY|TCP|TLS|Udp|WriteWrap/.test(name)) count += 1;
  return count;
}

// A line of the log at the level of an error, or of a warning. A log that is not read for a second does without it.
function report(error, mark = '<3>') {
  let line = Buffer.from(`${mark}${text(error?.stack ?? error).replaceAll('\n', `\n${mark}`)}\n`);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 0; line.length > 0 && tries < 1000; tries++) {
    try {
      line = line.subarray(fs.writeSync(2, line));
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

// Standard output is made when it is used first; from then on it is known here.
let stdout = null;
const lazy = Object.getOwnPropertyDescriptor(process, 'stdout');
Object.defineProperty(process, 'stdout', { ...lazy, get: () => (stdout ??= lazy.get.call(process)) });

// What was printed and waits for the agent to read it is of this call. A log that is not read for a second does without it.
async function printed() {
  for (let tries = 0; tries < 1000; tries++) {
    if (!(stdout?.writableLength > 0) && !(process.stderr.writableLength > 0)) return;
    await new Promise((done) => setTimeout(done, 1));
  }
}

// One turn of the event loop, in which promises end that wait for nothing; then what is left is told. Whether there is any.
async function leaves() {
  const failed = [];
  failCall = (error) => failed.push(error);
  await new Promise((done) => setImmediate(done));
  failCall = null;
  for (const error of failed) report(error);
  const left = active() - standing;
  if (left <= 0 && failed.length === 0) return false;
  const what = left > 0 ? `${left} timer${left > 1 ? 's' : ''}, operation${left > 1 ? 's' : ''} or worker${left > 1 ? 's' : ''} running` : 'a promise that failed';
  report(`the handler returned and left ${what}; what it left ends here, and the next call gets a new instance`, '<4>');
  return true;
}

// `(event, context, callback)`: the callback answers, unless a promise does.
function withCallback(target, event, context) {
  if (target.length < 3) return target(event, context);
  return new Promise((answer, fail) => {
    const callback = (error, value) => (error === null || error === undefined || error === false ? answer(value) : fail(error));
    const value = target(event, context, callback);
    if (typeof value?.then === 'function') value.then(answer, fail);
    else if (value !== undefined) answer(value);
  });
}

class Unsettled extends Error {
  constructor() {
    super('nothing is left to wait for, and the handler has not answered: it waits for a promise that never settles, or for a callback that is never called');
  }
}

process.on('beforeExit', () => failCall?.(new Unsettled()));

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

// Connections end with each call, and their sockets hear of it only when the event loop turns: before a pooled one is used. What
// fails with them was not this call's.
async function forgetOldConnections() {
  failCall = () => {};
  for (let turn = 0; turn < 2; turn++) await new Promise((done) => setImmediate(done));
  failCall = null;
}

async function call(secret, { job_id, deadline_ms, parameters, event, body: has_body }) {
  const body = has_body ? new Body(secret) : null;
  const context = { job_id, function: settings.name, version: settings.version, deadline_ms, parameters, body: body?.stream ?? null };
  let value;
  let watch = null;
  // While a body is read nothing is told: both come over one channel.
  watches = (told) => void (watch ??= !body || body.isOver() ? new Watch(secret, told) : null);
  if (settings.network) await forgetOldConnections();
  try {
    value = handler.length < 3 ? handler(event, context) : withCallback(handler, event, context);
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
    watches = null;
    if (body) await body.leave();
    await watch?.leave();
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
  answering = true;
  try {
    json = JSON.stringify(value ?? null);
  } catch (error) {
    throw new Invalid(`a chunk is neither text nor bytes nor JSON: ${error?.message}`);
  } finally {
    answering = false;
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
  #ended = false;

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
      if (kind !== 'b') this.#ended = true;
      if (kind === 'b') controller.enqueue(new Uint8Array(bytes));
      else controller.close();
    } catch {
      // It was cancelled meanwhile.
    }
  }

  isOver() {
    return this.#ended;
  }

  // Nothing of the body is in the channel afterwards.
  async leave() {
    this.#left = true;
    if (!this.#reading) return;
    send(this.#secret, ['Q', '']);
    await this.#reading;
  }
}

// Tells that nobody reads the answer any more.
class Watch {
  #secret;
  #told;
  #over = false;

  constructor(secret, told) {
    this.#secret = secret;
    send(secret, ['W', '']);
    this.#told = receiveLater().then(() => {
      if (!this.#over) told();
      this.#over = true;
    });
  }

  // Nothing of it is in the channel afterwards.
  async leave() {
    if (this.#over) return;
    this.#over = true;
    send(this.#secret, ['V', '']);
    await this.#told;
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
  answering = true;
  try {
    output = JSON.stringify(value ?? null) ?? null;
  } catch (error) {
    return ['I', text(error?.message).slice(0, 1000)];
  } finally {
    answering = false;
  }
  if (output === null) return ['I', `${shapeOf(value)} has no JSON form`];
  if (output.length > settings.output_bytes || Buffer.byteLength(output) > settings.output_bytes) return ['T', ''];
  return ['O', output];
}

// A value's kind, for a sentence.
function shapeOf(value) {
  if (value === undefined || value === null) return String(value);
  if (typeof value !== 'object') return `a ${typeof value}`;
  return `an object of the class ${value.constructor?.name || 'Object'}`;
}

function describe(error) {
  if (!(error instanceof Error)) return { type: error === null ? 'null' : typeof error, message: thrown(error), stack: '' };
  let message = text(error.message);
  // Promise.any says nothing of its own.
  if (error instanceof AggregateError) message = [message, ...error.errors.slice(0, 10).map((one) => text(one?.message ?? one))].filter(Boolean).join('; ');
  return { type: error.constructor?.name || error.name, message, stack: ownStack(error) };
}

// What was thrown and is no Error: its message, or its fields.
function thrown(value) {
  if (typeof value !== 'object' || value === null) return text(value);
  if (typeof value.message === 'string') return text(value.message);
  try {
    const fields = JSON.stringify(value);
    if (fields && fields !== '{}') return text(fields);
  } catch {
    // It is told as a text.
  }
  return text(value);
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

// While an answer is written, bytes are `$bytes`, and what JSON would drop without a word is an error. A function's own
// `JSON.stringify` knows nothing of it.
let answering = false;

function inAnswers(prototype, toJSON) {
  const own = Object.getOwnPropertyDescriptor(prototype, 'toJSON')?.value;
  Object.defineProperty(prototype, 'toJSON', {
    get: () => (answering ? toJSON : own),
    set(value) {
      Object.defineProperty(this, 'toJSON', { value, writable: true, enumerable: true, configurable: true });
    },
    configurable: true,
  });
}

function bytesToJson() {
  const bytes = this instanceof ArrayBuffer ? Buffer.from(this) : Buffer.from(this.buffer, this.byteOffset, this.byteLength);
  return { $bytes: bytes.toString('base64') };
}

const iterators = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));
const asyncIterators = Object.getPrototypeOf(Object.getPrototypeOf(async function* () {}.prototype));
for (const prototype of [Uint8Array.prototype, Buffer.prototype, ArrayBuffer.prototype, DataView.prototype]) inAnswers(prototype, bytesToJson);
for (const [prototype, what, instead] of [
  [Map.prototype, 'a Map', 'return Object.fromEntries(map) or [...map]'],
  [Set.prototype, 'a Set', 'return [...set]'],
  [WeakMap.prototype, 'a WeakMap', 'return what is in it'],
  [WeakSet.prototype, 'a WeakSet', 'return what is in it'],
  [Promise.prototype, 'a Promise', 'await it'],
  [RegExp.prototype, 'a RegExp', 'return its source'],
  [Error.prototype, 'an Error', 'throw it, or return its message'],
  [iterators, 'an iterator', 'return [...iterator], or the iterator itself for a stream'],
  [asyncIterators, 'an asynchronous iterator', 'return it itself for a stream'],
  [BigInt.prototype, 'a BigInt', 'return String(number) or Number(number)'],
]) {
  inAnswers(prototype, () => {
    throw new TypeError(`${what} has no JSON form; ${instead}`);
  });
}

function failOrDie(error) {
  if (failCall) return failCall(error);
  report(error);
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
  contracts();
  handler = (await import('/runner/warm.mjs')).default;
  settings = { name: '', version: 0, output_bytes: 1024 };
  await call(null, JSON.parse('{"job_id":"","deadline_ms":0,"parameters":null,"event":{"name":[1]}}'));
  send(Buffer.alloc(16), ['H', GREETING]);
  for (;;) {
    const { secret, kind, payload } = receive();
    const message = JSON.parse(payload);
    if (kind === 'L') {
      send(secret, await load(message));
    } else {
      const answer = await call(secret, message);
      await printed();
      if (await leaves()) send(secret, ['X', '']);
      send(secret, answer);
    }
  }
}

serve();
