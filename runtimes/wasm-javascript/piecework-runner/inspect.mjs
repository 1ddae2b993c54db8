// How `console` shows values: strings as they are, everything else much as Node prints it.

const DEPTH_MAX = 4;
const ITEMS_MAX = 100;

function quoted(text) {
  return "'" + text.replace(/\\/g, "\\\\").replace(/'/g, "\\'").replace(/\n/g, "\\n") + "'";
}

function list(open, close, items) {
  if (items.length === 0) return open + close;
  const line = open + " " + items.join(", ") + " " + close;
  return line.length <= 76 && !line.includes("\n")
    ? line
    : open + "\n  " + items.map((item) => item.replace(/\n/g, "\n  ")).join(",\n  ") + "\n" + close;
}

function cut(items, length) {
  if (length > ITEMS_MAX) items.push(`... ${length - ITEMS_MAX} more items`);
  return items;
}

function members(value, seen) {
  return Object.keys(value).map((key) => {
    const name = /^[A-Za-z_$][\w$]*$/.test(key) ? key : quoted(key);
    const field = Object.getOwnPropertyDescriptor(value, key);
    if (field && field.get) return `${name}: [Getter]`;
    return `${name}: ${inspect(value[key], seen)}`;
  });
}

function structure(value, seen) {
  if (value instanceof Error) {
    const head = `${value.name}: ${value.message}`;
    if (!value.stack) return `[${head}]`;
    const stack = String(value.stack).trimEnd();
    return stack.startsWith("    at ") ? `${head}\n${stack}` : stack;
  }
  if (seen.includes(value)) return "[Circular]";
  if (seen.length > DEPTH_MAX) return Array.isArray(value) ? "[Array]" : "[Object]";
  const inner = [...seen, value];
  if (Array.isArray(value)) return list("[", "]", cut(value.slice(0, ITEMS_MAX).map((item) => inspect(item, inner)), value.length));
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const items = Array.from(value.subarray(0, ITEMS_MAX), String);
    return `${value.constructor.name}(${value.length}) ` + list("[", "]", cut(items, value.length));
  }
  if (value instanceof Map) {
    const items = [...value].slice(0, ITEMS_MAX).map(([key, item]) => `${inspect(key, inner)} => ${inspect(item, inner)}`);
    return `Map(${value.size}) ` + list("{", "}", cut(items, value.size));
  }
  if (value instanceof Set) {
    const items = [...value].slice(0, ITEMS_MAX).map((item) => inspect(item, inner));
    return `Set(${value.size}) ` + list("{", "}", cut(items, value.size));
  }
  if (value instanceof Date) return isNaN(value) ? "Invalid Date" : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (value instanceof Promise) return "Promise { ... }";
  const prototype = Object.getPrototypeOf(value);
  const name = prototype === null ? "[Object: null prototype]" : prototype.constructor?.name;
  return (name && name !== "Object" ? name + " " : "") + list("{", "}", members(value, inner));
}

export function inspect(value, seen = []) {
  switch (typeof value) {
    case "string":
      return quoted(value);
    case "bigint":
      return `${value}n`;
    case "function":
      return value.name ? `[Function: ${value.name}]` : "[Function (anonymous)]";
    case "object":
      return value === null ? "null" : structure(value, seen);
    default:
      return String(value);
  }
}

// One line of `console.log`, with the printf-like first argument.
export function format(values) {
  let rest = values;
  let text = "";
  if (typeof values[0] === "string" && values.length > 1 && values[0].includes("%")) {
    rest = values.slice(1);
    text = values[0].replace(/%[sdifjoOc%]/g, (mark) => {
      if (mark === "%%") return "%";
      if (rest.length === 0) return mark;
      const value = rest.shift();
      if (mark === "%s") return typeof value === "string" ? value : inspect(value);
      if (mark === "%d") return String(Number(value));
      if (mark === "%i") return String(parseInt(value));
      if (mark === "%f") return String(parseFloat(value));
      if (mark === "%j") return JSON.stringify(value);
      return mark === "%c" ? "" : inspect(value);
    });
    if (rest.length) text += " ";
  }
  return text + rest.map((value) => (typeof value === "string" ? value : inspect(value))).join(" ");
}
