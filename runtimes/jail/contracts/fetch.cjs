// `export default { fetch(request, env, ctx) }`, with Node's own Request, Response and Headers.
'use strict';

const { requestOf, statusOf, whole } = require('./request.cjs');

const BODYLESS = new Set(['GET', 'HEAD']);

module.exports = (target, about) => {
  const env = { ...process.env };
  return async (event, context) => {
    if (isTick(event)) return ticked(target, event, [env, context, about]);
    const given = requestOf(event, context);
    const waiting = [];
    const ctx = contextOf(context, waiting, about);
    const client = new Client();
    const response = await target.fetch(client.sees(requestFrom(given)), env, ctx);
    if (!isResponse(response)) {
      throw new TypeError(`fetch() answers with a Response, and this one returned ${about.shapeOf(response)}`);
    }
    const leave = (told) =>
      about.watch(() => {
        client.went();
        told();
      });
    return answered(response, waiting, [given.method === 'HEAD', leave]);
  };
};

function contextOf(context, waiting, about) {
  return {
    waitUntil: (promise) => void waiting.push(Promise.resolve(promise).catch(about.report)),
    passThroughOnException() {},
    props: {},
    ...context,
  };
}

// What a schedule sends, and what a test may send by a call.
function isTick(event) {
  return typeof event === 'object' && event !== null && event.type === 'scheduled' && Number.isFinite(event.scheduledTime);
}

class NoScheduledHandler extends Error {
  constructor() {
    super('a schedule called this module, and it has no `scheduled()`: export one beside `fetch`, or remove the trigger');
  }
}

async function ticked(target, event, [env, context, about]) {
  if (typeof target.scheduled !== 'function') throw new NoScheduledHandler();
  const waiting = [];
  const controller = { ...event, cron: String(event.cron ?? ''), noRetry() {} };
  await target.scheduled(controller, env, contextOf(context, waiting, about));
  await all(waiting);
  return null;
}

// Also one of a framework's own, which keeps the shape.
function isResponse(value) {
  return typeof value === 'object' && value !== null && Number.isInteger(value.status) && typeof value.headers?.entries === 'function';
}

// Whom the answer is for. Most handlers never ask for `request.signal`, and a request that follows another signal costs as much
// as all the rest of it: it is made when it is asked for.
class Client {
  #controller = null;
  #gone = false;

  sees(request) {
    const get = () => {
      if (!this.#controller) {
        this.#controller = new AbortController();
        if (this.#gone) this.#abort();
      }
      return this.#controller.signal;
    };
    return Object.defineProperty(request, 'signal', { get, configurable: true });
  }

  went() {
    this.#gone = true;
    if (this.#controller) this.#abort();
  }

  #abort() {
    this.#controller.abort(new DOMException('the client has gone away', 'AbortError'));
  }
}

function requestFrom(given) {
  const init = { method: given.method, headers: given.headers, redirect: 'manual' };
  if (!BODYLESS.has(given.method)) {
    if (given.stream) Object.assign(init, { body: given.stream, duplex: 'half' });
    else if (given.body.length) init.body = given.body;
  }
  return new Request(`${given.scheme}://${given.host}${given.url}`, init);
}

async function answered(response, waiting, [isHead, leave]) {
  const pairs = [...response.headers];
  if (response.status === 101) throw new TypeError('a WebSocket cannot be answered here');
  const status = statusOf(response.status);
  if (!response.body || isHead) return settled(status, pairs, Buffer.alloc(0), waiting);
  const reader = response.body.getReader();
  const first = await reader.read();
  if (first.done) return settled(status, pairs, Buffer.alloc(0), waiting);
  // What is all there has its end right behind it.
  let second = null;
  const next = reader.read();
  next.then(
    (part) => (second = part),
    () => {},
  );
  for (let turn = 0; turn < 8 && !second; turn++) await null;
  if (second?.done) return settled(status, pairs, bytesOf(first.value), waiting);
  const gone = new Promise((yes) => leave(() => yes(null)));
  return { status, headers: pairs, body: rest([first, next], reader, [waiting, gone]) };
}

function bytesOf(chunk) {
  return typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

// An answer in one piece, or where something is to be waited for, one that is there before that.
function settled(status, pairs, body, waiting) {
  if (waiting.length === 0) return whole(status, pairs, body);
  const headers = pairs.filter(([name]) => name !== 'content-length');
  return { status, headers: [...headers, ['content-length', String(body.length)]], body: after(body, waiting) };
}

async function* after(body, waiting) {
  if (body.length) yield body;
  await all(waiting);
}

async function* rest([first, next], reader, [waiting, gone]) {
  let part = first;
  let following = next;
  try {
    while (!part.done) {
      yield part.value;
      const came = await Promise.race([following, gone]);
      if (came === null) break;
      part = came;
      following = part.done ? null : reader.read();
    }
  } finally {
    if (!part.done) {
      following?.catch(() => {});
      reader.cancel().catch(() => {});
    }
  }
  await all(waiting);
}

// Also what is added meanwhile.
async function all(waiting) {
  while (waiting.length) await waiting.shift();
}
