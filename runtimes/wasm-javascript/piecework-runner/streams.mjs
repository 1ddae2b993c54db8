// `ReadableStream` of the Streams Standard: default readers, asynchronous iteration and `from`. What is not here: BYOB
// readers, `tee`, `pipeTo` and `pipeThrough`, which a function that only gives out or takes in bytes does without.
//
// https://streams.spec.whatwg.org/#rs

import { touched } from "./touch.mjs";

const FOR_US = Symbol("made by a stream");

function deferred() {
  let resolve, reject;
  const promise = new Promise((done, failed) => ([resolve, reject] = [done, failed]));
  // Nobody need look at `closed`: its rejection is no error of its own.
  promise.catch(() => {});
  return { promise, resolve, reject };
}

class ReadableStreamDefaultController {
  #stream;
  constructor(key, stream) {
    if (key !== FOR_US) throw new TypeError("Illegal constructor");
    this.#stream = stream;
  }
  get desiredSize() {
    return this.#stream.desiredSize();
  }
  get byobRequest() {
    return null;
  }
  enqueue(chunk) {
    this.#stream.enqueue(chunk);
  }
  close() {
    this.#stream.requestClose();
  }
  error(reason) {
    this.#stream.error(reason);
  }
}

// The state of a stream: queue, waiting reads and the source's functions, all out of reach of the code outside.
class State {
  constructor(source, { highWaterMark, size }) {
    this.source = source;
    this.highWaterMark = highWaterMark;
    this.size = size;
    this.state = "readable";
    this.queue = [];
    this.queued = 0;
    this.reads = [];
    this.reader = null;
    this.closing = false;
    this.started = false;
    this.pulling = false;
    this.pullAgain = false;
    this.disturbed = false;
    this.storedError = undefined;
    this.controller = new ReadableStreamDefaultController(FOR_US, this);
  }

  start() {
    const begun = this.source.start?.(this.controller);
    const started = () => {
      this.started = true;
      this.pullIfNeeded();
    };
    Promise.resolve(begun).then(started, (reason) => this.error(reason));
  }

  desiredSize() {
    if (this.state === "errored") return null;
    return this.state === "closed" ? 0 : this.highWaterMark - this.queued;
  }

  enqueue(chunk) {
    if (this.state !== "readable" || this.closing) throw new TypeError("the stream takes no more chunks");
    if (this.reads.length > 0) {
      this.reads.shift().resolve({ value: chunk, done: false });
    } else {
      let size;
      try {
        size = Number(this.size(chunk));
        if (!(size >= 0) || size === Infinity) throw new RangeError("the size of a chunk is a finite number from 0");
      } catch (reason) {
        this.error(reason);
        throw reason;
      }
      this.queue.push({ chunk, size });
      this.queued += size;
    }
    this.pullIfNeeded();
  }

  requestClose() {
    if (this.state !== "readable" || this.closing) throw new TypeError("the stream is closed already");
    this.closing = true;
    if (this.queue.length === 0) this.close();
  }

  close() {
    this.state = "closed";
    for (const read of this.reads.splice(0)) read.resolve({ value: undefined, done: true });
    this.reader?.closed.resolve();
  }

  error(reason) {
    if (this.state !== "readable") return;
    this.state = "errored";
    this.storedError = reason;
    this.forgetQueue();
    for (const read of this.reads.splice(0)) read.reject(reason);
    this.reader?.closed.reject(reason);
  }

  forgetQueue() {
    this.queue = [];
    this.queued = 0;
  }

  pullIfNeeded() {
    const wanted = this.reads.length > 0 || this.desiredSize() > 0;
    if (this.state !== "readable" || this.closing || !this.started || !wanted) return;
    if (this.pulling) {
      this.pullAgain = true;
      return;
    }
    this.pulling = true;
    const pulled = () => {
      this.pulling = false;
      if (!this.pullAgain) return;
      this.pullAgain = false;
      this.pullIfNeeded();
    };
    let pulls;
    try {
      pulls = Promise.resolve(this.source.pull?.(this.controller));
    } catch (reason) {
      pulls = Promise.reject(reason);
    }
    pulls.then(pulled, (reason) => this.error(reason));
  }

  read() {
    this.disturbed = true;
    if (this.state === "closed") return Promise.resolve({ value: undefined, done: true });
    if (this.state === "errored") return Promise.reject(this.storedError);
    if (this.queue.length > 0) {
      const { chunk, size } = this.queue.shift();
      this.queued = Math.max(0, this.queued - size);
      if (this.closing && this.queue.length === 0) this.close();
      else this.pullIfNeeded();
      return Promise.resolve({ value: chunk, done: false });
    }
    return new Promise((resolve, reject) => {
      this.reads.push({ resolve, reject });
      this.pullIfNeeded();
    });
  }

  async cancel(reason) {
    this.disturbed = true;
    if (this.state === "closed") return;
    if (this.state === "errored") throw this.storedError;
    this.close();
    this.forgetQueue();
    await this.source.cancel?.(reason);
  }
}

const states = new WeakMap();

function stateOf(stream) {
  const state = states.get(stream);
  if (!state) throw new TypeError("this is no ReadableStream");
  return state;
}

class ReadableStreamDefaultReader {
  #state;
  #released = null;
  constructor(stream) {
    const state = stateOf(stream);
    if (state.reader) throw new TypeError("the stream is locked to a reader");
    this.#state = state;
    const closed = deferred();
    state.reader = { closed };
    if (state.state === "closed") closed.resolve();
    if (state.state === "errored") closed.reject(state.storedError);
  }
  get closed() {
    return this.#released ?? this.#state.reader.closed.promise;
  }
  read() {
    return this.#released ? this.#refused() : this.#state.read();
  }
  cancel(reason) {
    return this.#released ? this.#refused() : this.#state.cancel(reason);
  }
  releaseLock() {
    if (this.#released) return;
    const state = this.#state;
    const reason = new TypeError("the reader has released its stream");
    for (const read of state.reads.splice(0)) read.reject(reason);
    if (state.state === "readable") state.reader.closed.reject(reason);
    this.#released = Promise.reject(reason);
    this.#released.catch(() => {});
    state.reader = null;
  }
  #refused() {
    return Promise.reject(new TypeError("the reader has released its stream"));
  }
}

async function* values(stream, preventCancel) {
  const reader = stream.getReader();
  let ended = false;
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((reason) => {
        ended = true;
        throw reason;
      });
      if (done) {
        ended = true;
        return;
      }
      yield value;
    }
  } finally {
    const cancelled = ended || preventCancel ? undefined : reader.cancel();
    reader.releaseLock();
    await cancelled;
  }
}

export class ReadableStream {
  constructor(source = {}, strategy = {}) {
    if (source === null || typeof source !== "object") throw new TypeError("the source of a stream is an object");
    if (source.type !== undefined && String(source.type) !== "bytes") throw new TypeError("a stream's type is `bytes` or nothing");
    if (source.autoAllocateChunkSize !== undefined) touched("autoAllocateChunkSize of a ReadableStream");
    const highWaterMark = Number(strategy.highWaterMark ?? (source.type === undefined ? 1 : 0));
    if (Number.isNaN(highWaterMark) || highWaterMark < 0) throw new RangeError("highWaterMark is a number from 0");
    const state = new State(source, { highWaterMark, size: strategy.size ?? (() => 1) });
    states.set(this, state);
    state.start();
  }

  static from(iterable) {
    const method = iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator];
    if (typeof method !== "function") throw new TypeError("the value cannot be iterated over");
    const iterator = method.call(iterable);
    const source = {
      async pull(controller) {
        const { value, done } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(await value);
      },
      async cancel(reason) {
        await iterator.return?.(reason);
      },
    };
    return new ReadableStream(source, { highWaterMark: 0 });
  }

  get locked() {
    return stateOf(this).reader !== null;
  }
  getReader(options = {}) {
    if (options?.mode !== undefined) touched("the mode of a ReadableStream's reader");
    return new ReadableStreamDefaultReader(this);
  }
  async cancel(reason) {
    if (this.locked) throw new TypeError("the stream is locked to a reader");
    return stateOf(this).cancel(reason);
  }
  values({ preventCancel = false } = {}) {
    return values(this, preventCancel);
  }
  [Symbol.asyncIterator]() {
    return this.values();
  }
  get [Symbol.toStringTag]() {
    return "ReadableStream";
  }
}

export function isDisturbed(stream) {
  return stateOf(stream).disturbed;
}

export function install() {
  Object.assign(globalThis, { ReadableStream, ReadableStreamDefaultReader, ReadableStreamDefaultController });
}
