// What Node has and this component lacks, or has in another form: whatever touches it ends the run.
//
// The host is told what was touched and ends the instance there: `try` cannot swallow it, and no value that Node would not
// give gets out. Where the sandbox was chosen by the platform, the call runs in another one; where it was named, the
// caller is told.

const define = Object.defineProperty;
let tell;

/** `host.touch` does not return. */
export function install(host) {
  tell = host.touch;
}

export function touched(what) {
  tell(what);
}

// Assigning to it makes it the function's own, as with any other global or method.
function trap(object, key, what) {
  define(object, key, {
    get: () => touched(what),
    set(value) {
      define(this, key, { value, writable: true, enumerable: true, configurable: true });
    },
    enumerable: false,
    configurable: true,
  });
}

/** A method that is there, and gives what Node gives only where `same` says so. */
export function only(object, key, what, same) {
  const own = object[key];
  const method = {
    [key](...args) {
      return same(this, args) ? own.apply(this, args) : touched(what);
    },
  }[key];
  define(method, "length", { value: own.length, configurable: true });
  define(object, key, { value: method, writable: true, enumerable: false, configurable: true });
}

const NAMELESS = {
  "%TypedArray%": Object.getPrototypeOf(Int8Array),
  "%IteratorPrototype%": Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())),
  "%ArrayIteratorPrototype%": Object.getPrototypeOf([][Symbol.iterator]()),
  "%GeneratorPrototype%": Object.getPrototypeOf(function* () {}).prototype,
  "%AsyncGeneratorPrototype%": Object.getPrototypeOf(async function* () {}).prototype,
};

// The object at a path, or nothing: then a trap further up stands for all of it.
function at(path) {
  if (path === "globalThis") return globalThis;
  let [first, ...rest] = path.split(".");
  let object = NAMELESS[first] ?? Object.getOwnPropertyDescriptor(globalThis, first)?.value;
  for (const name of rest) {
    if (object === undefined || object === null) return undefined;
    object = Object.getOwnPropertyDescriptor(object, name)?.value;
  }
  return (typeof object === "object" && object !== null) || typeof object === "function" ? object : undefined;
}

// Here a thing is gone as soon as nobody holds it; there whenever its collector comes along.
const OTHERWISE = ["WeakRef", "FinalizationRegistry"];

/** Sets a trap for every name of Node's that is not here. */
export function trapAbsent(places) {
  for (const name of OTHERWISE) trap(globalThis, name, name);
  for (const [path, names] of Object.entries(places)) {
    const object = at(path);
    if (object === undefined) continue;
    for (const name of names) {
      const key = name.startsWith("@@") ? Symbol[name.slice(2)] : name;
      if (key === undefined || key in object) continue;
      trap(object, key, path === "globalThis" ? name : `${path}.${name}`);
    }
  }
}
