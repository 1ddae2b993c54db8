// Answers that are given piece by piece, and the body of a request. The rules are those of runtimes/jail/node.cjs;
// ports/sandbox/src/conformance holds both to them.

import { ReadableStream } from "./streams.mjs";

// At most three bytes of UTF-8 for each unit: below 64 KiB.
const TEXT_UNITS_MAX = 21000;
const CHUNK_BYTES_MAX = 64 << 10;

// The function's answer is none, with a sentence.
export class Invalid extends Error {}

// What is given piece by piece: something to iterate over asynchronously, or an iterator. Neither has a JSON form.
function chunksIn(value) {
  if (typeof value !== "object" || value === null) return null;
  const iterates = typeof value.next === "function" && typeof value[Symbol.iterator] === "function";
  return iterates || typeof value[Symbol.asyncIterator] === "function" ? value : null;
}

// Head and chunks where the value is a streamed answer, else null.
export function streamIn(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  if (value[Symbol.toStringTag] === "Response") {
    return { status: value.status, headers: headerPairs(value.headers), chunks: value.body ?? [] };
  }
  const bare = chunksIn(value);
  if (bare) return { status: 0, headers: [], chunks: bare };
  const chunks = chunksIn(value.body);
  return chunks && { ...headOf(value), chunks };
}

function headOf({ body, status, headers, ...others }) {
  for (const key of Object.keys(others)) throw new Invalid(`a streamed answer has status, headers and body, and no \`${key}\``);
  if (!Number.isInteger(status)) throw new Invalid("a streamed answer with a body has a whole number as its status");
  return { status, headers: headerPairs(headers ?? []) };
}

// From an object, from pairs, or from `Headers`; a value that is a list stands for several of that name.
function headerPairs(headers) {
  const pairs = [];
  for (const [name, value] of typeof headers[Symbol.iterator] === "function" ? headers : Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (typeof one !== "string" && typeof one !== "number") throw new Invalid("headers are names with texts, numbers or lists of them");
      pairs.push([String(name), String(one)]);
    }
  }
  return pairs;
}

// Sends a stream's head and chunks as long as `live()`. The head of one with a status is sent at once, else before the
// first chunk. Each call of the host waits for whoever reads.
export async function pour(host, { status, headers, chunks }, toJson, live) {
  let head = JSON.stringify({ status, headers });
  const begin = () => {
    if (head !== null) host.head(head);
    head = null;
  };
  if (status) begin();
  for await (const value of chunks) {
    if (!live()) return;
    sendChunk(host, value, toJson, begin);
  }
  if (live()) begin();
}

// Text is UTF-8, bytes are bytes, anything else is a line of JSON.
function sendChunk(host, value, toJson, begin) {
  if (typeof value === "string") return sendText(host, value, begin);
  if (ArrayBuffer.isView(value)) return sendBytes(host, new Uint8Array(value.buffer, value.byteOffset, value.byteLength), begin);
  if (value instanceof ArrayBuffer) return sendBytes(host, new Uint8Array(value), begin);
  let json;
  try {
    json = toJson(value ?? null);
  } catch (error) {
    throw new Invalid(`a chunk is neither text nor bytes nor JSON: ${error?.message}`);
  }
  if (json === undefined) throw new Invalid(`a chunk is neither text nor bytes nor JSON: a ${typeof value} has no JSON form`);
  sendText(host, json + "\n", begin);
}

function sendBytes(host, bytes, begin) {
  if (bytes.length) begin();
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) host.chunk(bytes.subarray(at, at + CHUNK_BYTES_MAX));
}

function sendText(host, text, begin) {
  if (text) begin();
  if (typeof text.toWellFormed === "function") text = text.toWellFormed();
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + TEXT_UNITS_MAX, text.length);
    const last = text.charCodeAt(end - 1);
    if (end < text.length && last >= 0xd800 && last < 0xdc00) end -= 1;
    host.text(text.slice(at, end));
    at = end;
  }
}

// The body of the request as a stream of Uint8Arrays, as long as `live()`.
export function bodyOf(host, live) {
  const pull = (controller) => {
    if (!live()) return controller.error(new Error("the call has ended, and the body of its request with it"));
    const part = host.body();
    if (part.length) controller.enqueue(new Uint8Array(part));
    else controller.close();
  };
  return new ReadableStream({ pull }, { highWaterMark: 0 });
}
