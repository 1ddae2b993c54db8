// Makes a component's async exports plain ones.
//
// componentize-qjs runs promise jobs only in async exports, and the machinery of async calls costs the host more than a
// short function does. But the engine's half of an async export is a plain function: it calls the JavaScript function,
// runs all jobs and returns a code. So the exports are lifted as plain functions that return this code; what only async
// calls may use is bound to imports that trap. Nothing calls those, as long as no import is async and what the exports
// return never settles (`settle` in runner.mjs).
//
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md

const SECTION = { type: 7, canon: 8, import: 10 };
const PREAMBLE_LENGTH = 8;
const FUNC_SORT = 0x01;
const ASYNC_FUNC = 0x43;
const FUNC = 0x40;
const NO_RESULT = [0x01, 0x00];
const U32_RESULT = [0x00, 0x79];
const LIFT = 0x00;
const LOWER = 0x01;
const ASYNC_OPTION = 0x06;
const CALLBACK_OPTION = 0x07;

// What only async calls may use -> the import of world.wit whose core function has the same type.
const STANDS_IN = {
  0x05: "reserved-none", // task.cancel
  0x06: "reserved-swap", // subtask.cancel
  0x09: "reserved-none", // task.return, without a result
  0x0a: "reserved-give", // context.get
  0x0b: "reserved-take", // context.set
  0x0d: "reserved-take", // subtask.drop
  0x1f: "reserved-give", // waitable-set.new
  0x22: "reserved-take", // waitable-set.drop
  0x23: "reserved-pair", // waitable.join
};

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  get done() {
    return this.at >= this.bytes.length;
  }
  byte() {
    return this.bytes[this.at++];
  }
  number() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }
  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}

export function encoded(value) {
  const bytes = [];
  do {
    bytes.push((value % 128) + (value >= 128 ? 128 : 0));
    value = Math.floor(value / 128);
  } while (value > 0);
  return bytes;
}

export function* sections(bytes) {
  const reader = new Reader(bytes);
  reader.take(PREAMBLE_LENGTH);
  while (!reader.done) {
    const id = reader.byte();
    yield { id, body: reader.take(reader.number()) };
  }
}

// Name -> index of the component's imported functions, which come before all others.
function importedFunctions(component) {
  const found = new Map();
  for (const { id, body } of sections(component)) {
    if (id !== SECTION.import) continue;
    const reader = new Reader(body);
    for (let left = reader.number(); left > 0; left--) {
      reader.byte();
      const name = Buffer.from(reader.take(reader.number())).toString();
      if (reader.byte() === FUNC_SORT) found.set(name, found.size);
      reader.number();
    }
  }
  return found;
}

function plainType(body) {
  if (body[0] !== 1 || body[1] !== ASYNC_FUNC) return body;
  if (body.at(-2) !== NO_RESULT[0] || body.at(-1) !== NO_RESULT[1]) throw new Error("an async export has a result");
  return [1, FUNC, ...body.subarray(2, -2), ...U32_RESULT];
}

// The options of a lift or a lower, without those of async calls.
function plainOptions(reader) {
  const kept = [];
  for (let left = reader.number(); left > 0; left--) {
    const option = reader.byte();
    const operand = option >= 0x03 && option !== ASYNC_OPTION ? encoded(reader.number()) : [];
    if (option !== ASYNC_OPTION && option !== CALLBACK_OPTION) kept.push([option, ...operand]);
  }
  return [...encoded(kept.length), ...kept.flat()];
}

function plainDefinition(reader, imports) {
  const kind = reader.byte();
  if (kind === LIFT || kind === LOWER) {
    const head = [kind, reader.byte(), ...encoded(reader.number()), ...plainOptions(reader)];
    return kind === LIFT ? [...head, ...encoded(reader.number())] : head;
  }
  if (kind >= 0x02 && kind <= 0x04) return [kind, ...encoded(reader.number())];
  const name = STANDS_IN[kind];
  if (name === undefined || !imports.has(name)) throw new Error(`nothing stands in for the canonical function ${kind}`);
  if (kind === 0x06) reader.byte();
  if (kind === 0x0a || kind === 0x0b) reader.take(1), reader.number();
  if (kind === 0x09) {
    if (reader.byte() !== NO_RESULT[0] || reader.byte() !== NO_RESULT[1]) throw new Error("an async export has a result");
    plainOptions(reader);
  }
  return [LOWER, 0x00, ...encoded(imports.get(name)), 0x00];
}

function plainCanon(body, imports) {
  const reader = new Reader(body);
  const count = reader.number();
  const definitions = Array.from({ length: count }, () => plainDefinition(reader, imports));
  return [...encoded(count), ...definitions.flat()];
}

export function plain(component) {
  const imports = importedFunctions(component);
  const parts = [Buffer.from(component.subarray(0, PREAMBLE_LENGTH))];
  for (const { id, body } of sections(component)) {
    const made = id === SECTION.type ? plainType(body) : id === SECTION.canon ? plainCanon(body, imports) : body;
    parts.push(Buffer.from([id, ...encoded(made.length)]), Buffer.from(made));
  }
  return Buffer.concat(parts);
}
