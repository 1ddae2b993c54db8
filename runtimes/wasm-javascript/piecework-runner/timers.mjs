// Timers that the host wakes: nothing here waits. The soonest is told to the host when the jobs have run out.

const DELAY_MS_MAX = 2 ** 31 - 1;

let timers = new Map();
let last = 0;
let host;

// What Node gives out for a timer.
class Timeout {
  #id;
  #held = true;
  #restart;
  constructor(id, restart) {
    this.#id = id;
    this.#restart = restart;
  }
  ref() {
    this.#held = true;
    return this;
  }
  unref() {
    this.#held = false;
    return this;
  }
  hasRef() {
    return this.#held && timers.has(this.#id);
  }
  refresh() {
    if (timers.has(this.#id)) this.#restart();
    return this;
  }
  close() {
    timers.delete(this.#id);
    return this;
  }
  [Symbol.toPrimitive]() {
    return this.#id;
  }
}

class Immediate extends Timeout {}

function refused(callback) {
  const error = new TypeError(`The "callback" argument must be of type function. Received ${callback === null ? "null" : typeof callback}`);
  error.code = "ERR_INVALID_ARG_TYPE";
  return error;
}

function add(callback, delay, args, { repeats = false, Kind = Timeout } = {}) {
  if (typeof callback !== "function") throw refused(callback);
  delay = Number(delay);
  delay = delay >= 1 && delay <= DELAY_MS_MAX ? Math.trunc(delay) : Kind === Immediate ? 0 : 1;
  last += 1;
  const timer = { id: last, callback, args, at: host.now() + delay, repeat: repeats ? delay : 0 };
  timer.handle = new Kind(last, () => {
    timer.at = host.now() + delay;
  });
  timers.set(last, timer);
  return timer.handle;
}

export function install(given) {
  host = given;
  const clear = (id) => {
    if (id instanceof Timeout || typeof id === "number" || typeof id === "string") timers.delete(Number(id));
  };
  Object.assign(globalThis, {
    setTimeout: (callback, delay = 1, ...args) => add(callback, delay, args),
    setInterval: (callback, delay = 1, ...args) => add(callback, delay, args, { repeats: true }),
    setImmediate: (callback, ...args) => add(callback, 0, args, { Kind: Immediate }),
    clearTimeout: (id) => clear(id),
    clearInterval: (id) => clear(id),
    clearImmediate: (id) => clear(id),
  });
}

// Milliseconds until the soonest timer; -1 if there is none.
export function soonest() {
  if (timers.size === 0) return -1;
  let at = Infinity;
  for (const timer of timers.values()) if (timer.at < at) at = timer.at;
  return Math.max(0, at - host.now());
}

// Runs one timer that is due: the jobs that it starts run before the next one, as everywhere.
export function runDue() {
  const now = host.now();
  let due = null;
  for (const timer of timers.values()) {
    if (timer.at <= now && (due === null || timer.at < due.at)) due = timer;
  }
  if (due === null) return;
  if (due.repeat) due.at = now + due.repeat;
  else timers.delete(due.id);
  due.callback.apply(due.handle, due.args);
}

// What a call leaves behind must not wake the next one.
export function clearAll() {
  if (timers.size) timers = new Map();
}
