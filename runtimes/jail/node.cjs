// The JavaScript side of the jail: serves one program's calls in a process that was jailed before it started.
//
// Frames on descriptor 3, both ways: length (u32, little-endian) of what follows, 16 bytes of the call's secret, one byte
// of kind, payload. Reads block on purpose: between calls the process is frozen, its timers too.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const CHANNEL = 3;
const FUNCTION = '/function';
const STACK_MAX = 16 * 1024;

let handler = null;
let settings = null;
let failCall = null;

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
  const body = Buffer.from(payload, 'utf8');
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

async function call({ job_id, deadline_ms, parameters, event }) {
  const context = { job_id, function: settings.name, version: settings.version, deadline_ms, parameters };
  let value;
  if (settings.network) await forgetOldConnections();
  try {
    value = handler(event, context);
    if (value instanceof Promise || typeof value?.then === 'function') value = await Promise.race([value, failure()]);
  } catch (error) {
    return ['R', JSON.stringify(describe(error))];
  } finally {
    failCall = null;
  }
  return encode(value);
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
  await call(JSON.parse('{"job_id":"","deadline_ms":0,"parameters":null,"event":{"name":[1]}}'));
  send(Buffer.alloc(16), ['H', '']);
  for (;;) {
    const { secret, kind, payload } = receive();
    const message = JSON.parse(payload);
    send(secret, kind === 'L' ? await load(message) : await call(message));
  }
}

serve();
