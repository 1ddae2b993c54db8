// `(req, res)`: Node's own IncomingMessage and ServerResponse, over a socket that leads nowhere.
'use strict';

const http = require('node:http');
const { Duplex } = require('node:stream');
const { requestOf, whole } = require('./request.cjs');

// What says something about the connection only.
const CONNECTION = new Set(['connection', 'keep-alive', 'transfer-encoding']);

module.exports = (target, about) => {
  const listener = listenerOf(target);
  return async (event, context) => {
    const given = requestOf(event, context);
    const call = await listener;
    const socket = new Socket(given);
    const request = requestFrom(given, socket);
    const answer = new Answer(request, socket, about.watch);
    const returned = call(request, answer.response);
    // An async function that fails has nobody else to tell.
    if (typeof returned?.then !== 'function') return answer.begun;
    return Promise.race([answer.begun, new Promise((_, no) => returned.then(null, no))]);
  };
};

async function listenerOf(target) {
  if (typeof target === 'function') return target;
  if (typeof target.ready === 'function' && typeof target.routing === 'function') {
    await target.ready();
    return (request, response) => target.routing(request, response);
  }
  if (typeof target.callback === 'function') return target.callback();
  return (request, response) => void target.emit('request', request, response);
}

// Takes the bytes of the answer: its head, which is known, and then its body.
class Socket extends Duplex {
  constructor({ client, scheme }) {
    super();
    this.remoteAddress = client.address;
    this.remotePort = client.port;
    this.remoteFamily = client.address?.includes(':') ? 'IPv6' : 'IPv4';
    this.encrypted = scheme === 'https';
    this.answer = null;
  }
  _read() {}
  _write(chunk, encoding, done) {
    this.answer.take(chunk, done);
  }
  _final(done) {
    done();
  }
  setTimeout() {
    return this;
  }
  setKeepAlive() {
    return this;
  }
  setNoDelay() {
    return this;
  }
  ref() {
    return this;
  }
  unref() {
    return this;
  }
  address() {
    return {};
  }
}

function requestFrom(given, socket) {
  const request = new http.IncomingMessage(socket);
  request.method = given.method;
  request.url = given.url;
  request.httpVersion = '1.1';
  request.httpVersionMajor = request.httpVersionMinor = 1;
  const raw = given.headers.flat();
  request._addHeaderLines(raw, raw.length);
  if (given.stream) return fed(request, given.stream.getReader());
  if (given.body.length) request.push(given.body);
  request.push(null);
  request.complete = true;
  return request;
}

function fed(request, reader) {
  request._read = () => {
    const give = ({ done, value }) => {
      if (done) request.complete = true;
      request.push(done ? null : Buffer.from(value.buffer, value.byteOffset, value.byteLength));
    };
    reader.read().then(give, (error) => request.destroy(error));
  };
  return request;
}

// One answer: what Node's ServerResponse writes to its socket, taken apart into head and body. Beside the response and not a
// class of it: frameworks give a response another prototype.
class Answer {
  #head = 0;
  #chunks = [];
  #waiting = null;
  #written = null;
  #over = false;
  #told = false;
  #tell;
  #fail;
  #leave;

  constructor(request, socket, watch) {
    this.#leave = () => watch(() => this.#clientWent(request, socket));
    this.begun = new Promise((yes, no) => ([this.#tell, this.#fail] = [yes, no]));
    const response = new http.ServerResponse(request);
    this.response = response;
    // Neither chunks nor a date: the connection is somebody else's.
    response.useChunkedEncodingByDefault = false;
    response.sendDate = false;
    response.shouldKeepAlive = false;
    // 1xx is not passed on.
    const write = response._writeRaw;
    response._writeRaw = function (data, encoding, done) {
      if (this._header) return write.call(this, data, encoding, done);
      const called = typeof encoding === 'function' ? encoding : done;
      if (typeof called === 'function') process.nextTick(called);
      return true;
    };
    socket.answer = this;
    response.assignSocket(socket);
    response.once('finish', () => this.#ended());
    response.once('close', () => this.#ended());
    socket.once('close', () => this.#ended());
    socket.once('error', (error) => this.#fail(error));
  }

  // Bytes that the socket was given; the head's are counted off.
  take(chunk, done) {
    const left = this.response._header.length - this.#head;
    this.#head += Math.min(left, chunk.length);
    const body = left > 0 ? chunk.subarray(Math.min(left, chunk.length)) : chunk;
    if (body.length === 0) return done();
    this.#chunks.push(body);
    if (!this.#told) {
      // What ends in the same turn is in one piece.
      if (this.#chunks.length === 1) setImmediate(() => this.#begin());
      return done();
    }
    this.#written = done;
    this.#waiting?.();
  }

  #ended() {
    if (this.#over) return;
    this.#over = true;
    if (!this.response._header) return this.#fail(new Error('the connection was closed without an answer'));
    if (this.#told) return this.#waiting?.();
    this.#told = true;
    this.#tell(whole(this.response.statusCode, this.#pairs(), Buffer.concat(this.#chunks)));
  }

  // As Node tells of a connection that was closed.
  #clientWent(request, socket) {
    if (this.#over) return;
    request.on('error', () => {});
    request.destroy();
    socket.destroy();
  }

  #begin() {
    if (this.#told) return;
    this.#told = true;
    this.#leave();
    this.#tell({ status: this.response.statusCode, headers: this.#pairs(), body: this.#stream() });
  }

  // The lines of the head, as they were written.
  #pairs() {
    const lines = this.response._header.split('\r\n').slice(1, -2);
    const pairs = lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
    return pairs.filter(([name]) => !CONNECTION.has(name.toLowerCase()));
  }

  async *#stream() {
    try {
      for (;;) {
        if (this.#chunks.length) {
          yield this.#chunks.shift();
        } else if (this.#written) {
          const done = this.#written;
          this.#written = null;
          done();
        } else if (this.#over) {
          return;
        } else {
          await new Promise((yes) => (this.#waiting = yes));
          this.#waiting = null;
        }
      }
    } finally {
      if (!this.#over) this.response.destroy();
    }
  }
}
