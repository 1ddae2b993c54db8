// Timers that the host wakes: nothing here waits. The soonest is told to the host when the jobs have run out.

let timers = new Map();
let last = 0;

function add(callback, delay, args, repeat) {
  if (typeof callback !== "function") throw new TypeError("a timer's callback must be a function");
  delay = Number(delay);
  if (!(delay >= 1)) delay = delay === 0 || Number.isNaN(delay) ? 0 : Math.max(0, delay);
  last += 1;
  timers.set(last, { id: last, callback, args, at: host.now() + delay, repeat: repeat ? Math.max(1, delay) : 0 });
  return last;
}

let host;

export function install(given) {
  host = given;
  const clear = (id) => void timers.delete(Number(id));
  Object.assign(globalThis, {
    setTimeout: (callback, delay = 0, ...args) => add(callback, delay, args, false),
    setInterval: (callback, delay = 0, ...args) => add(callback, delay, args, true),
    setImmediate: (callback, ...args) => add(callback, 0, args, false),
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear,
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
  due.callback(...due.args);
}

// What a call leaves behind must not wake the next one.
export function clearAll() {
  if (timers.size) timers = new Map();
}
