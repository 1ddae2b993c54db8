// Brings the language's own objects to what Node gives, or sets a trap where that would take a library: times and numbers
// for people, collation, texts that only one parser of dates understands.

import { only, touched } from "./touch.mjs";

const define = Object.defineProperty;
const put = (object, key, value) => define(object, key, { value, writable: true, enumerable: false, configurable: true });

function installTimes() {
  const proto = Date.prototype;
  for (const name of ["toLocaleString", "toLocaleDateString", "toLocaleTimeString"]) {
    only(proto, name, `Date.prototype.${name}`, (date) => Number.isNaN(date.getTime()));
  }
  // The zone is UTC here: another one in `TZ` is refused when the program is loaded.
  for (const name of ["toString", "toTimeString"]) {
    const own = proto[name];
    const method = {
      [name]() {
        const text = own.call(this);
        return text.endsWith("GMT+0000") ? text + " (Coordinated Universal Time)" : text;
      },
    }[name];
    put(proto, name, method);
  }
  const primitive = {
    [Symbol.toPrimitive](hint) {
      if (typeof this !== "object" || this === null) throw new TypeError("Date.prototype[Symbol.toPrimitive] called on no object");
      if (hint === "number") return this.valueOf();
      if (hint === "string" || hint === "default") {
        const text = this.toString();
        return typeof text === "object" ? this.valueOf() : text;
      }
      throw new TypeError("Invalid hint: " + String(hint));
    },
  }[Symbol.toPrimitive];
  define(proto, Symbol.toPrimitive, { value: primitive, writable: false, enumerable: false, configurable: true });
  installParsing();
}

// What the standard says of texts, and what `toString` and `toUTCString` write. Everything else is each engine's own.
const ISO = /^(?:\d{4}|[+-]\d{6})(?:-\d\d(?:-\d\d)?)?(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?$/;
const WRITTEN = /^[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d{4} \d\d:\d\d:\d\d GMT[+-]\d{4}(?: \([A-Za-z ]+\))?$/;
const UTC = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/;

function checked(text) {
  if (!ISO.test(text) && !WRITTEN.test(text) && !UTC.test(text)) touched("Date.parse of another form than ISO 8601");
  return text;
}

function installParsing() {
  const Own = Date;
  const parse = Own.parse;
  put(Own, "parse", { parse(text) { return parse(checked(String(text))); } }.parse);
  const toText = (value) => {
    if (typeof value !== "object" || value === null || value instanceof Own) return value;
    return value[Symbol.toPrimitive] ? value[Symbol.toPrimitive]("default") : value.valueOf() === value ? value.toString() : value.valueOf();
  };
  const Wrapped = new Proxy(Own, {
    apply: () => new Own().toString(),
    construct(target, args, newTarget) {
      if (args.length === 1) {
        const value = toText(args[0]);
        args = [typeof value === "string" ? checked(value) : value];
      }
      return Reflect.construct(target, args, newTarget === Wrapped ? target : newTarget);
    },
  });
  put(Own.prototype, "constructor", Wrapped);
  put(globalThis, "Date", Wrapped);
}

// Only what reads the same in every language that has these letters.
const PLAIN = /^[\x00-\x7f]*$/;

function installLanguages() {
  only(Number.prototype, "toLocaleString", "Number.prototype.toLocaleString", (value) => Number.isNaN(Number(value)));
  only(BigInt.prototype, "toLocaleString", "BigInt.prototype.toLocaleString", () => false);
  only(String.prototype, "localeCompare", "String.prototype.localeCompare", (text, args) => String(text) === String(args[0]));
  for (const name of ["toLocaleLowerCase", "toLocaleUpperCase"]) {
    only(String.prototype, name, `String.prototype.${name}`, (text, [locale]) => locale === undefined || (PLAIN.test(text) && /^(en|de|fr|es|it)\b/.test(locale)));
  }
}

// A pattern that this engine does not take may well be one that Node takes.
function installPatterns() {
  const Own = RegExp;
  const made = (make) => {
    try {
      return make();
    } catch (error) {
      return error instanceof SyntaxError ? touched(`a regular expression: ${error.message}`) : raise(error);
    }
  };
  const raise = (error) => {
    throw error;
  };
  const Wrapped = new Proxy(Own, {
    apply: (target, self, args) => made(() => Reflect.apply(target, self, args)),
    construct: (target, args, newTarget) => made(() => Reflect.construct(target, args, newTarget === Wrapped ? target : newTarget)),
  });
  put(Own.prototype, "constructor", Wrapped);
  put(globalThis, "RegExp", Wrapped);
}

// As V8 computes it: scaled by the largest, with Kahan's correction.
function hypot(...values) {
  const numbers = values.map((value) => Math.abs(Number(value)));
  if (numbers.includes(Infinity)) return Infinity;
  if (numbers.some(Number.isNaN)) return NaN;
  const largest = Math.max(0, ...numbers);
  if (largest === 0) return 0;
  let sum = 0;
  let correction = 0;
  for (const number of numbers) {
    const part = number / largest;
    const summand = part * part - correction;
    const preliminary = sum + summand;
    correction = preliminary - sum - summand;
    sum = preliminary;
  }
  return Math.sqrt(sum) * largest;
}

function installNumbers() {
  put(hypot, "length", 2);
  put(Math, "hypot", hypot);
  // Other bases than ten: the last digits of fractions and of large numbers are each engine's own.
  only(Number.prototype, "toString", "Number.prototype.toString in another base", (value, [radix]) => {
    return radix === undefined || Number(radix) === 10 || Number.isSafeInteger(Number(value)) || !Number.isFinite(Number(value)) || [2, 4, 8, 16, 32].includes(Number(radix));
  });
}

// Stacks begin with the error itself, as V8 writes them, and show nothing of the runner.
function installStacks() {
  const { get, set } = Object.getOwnPropertyDescriptor(Error.prototype, "stack");
  const frames = (text) => text.split("\n").filter((line) => line && !line.includes("/piecework-runner/")).join("\n");
  define(Error.prototype, "stack", {
    get() {
      const own = get.call(this);
      if (typeof own !== "string" || (own !== "" && !own.startsWith("    at "))) return own;
      let head;
      try {
        head = Error.prototype.toString.call(this);
      } catch {
        head = "Error";
      }
      const below = frames(own);
      return below ? `${head}\n${below}` : head;
    },
    set,
    enumerable: false,
    configurable: true,
  });
}

export function install() {
  installTimes();
  installNumbers();
  installLanguages();
  installPatterns();
  installStacks();
}
