// The codes of an answer; `ports/sandbox-wasm/src/answer.rs` and the Python runner have the same list.

export const DONE = 0;
export const RAISED = 1;
export const NO_HANDLER = 2;
export const SYNTAX = 3;
export const UNSUPPORTED = 4;
export const INVALID = 6;
export const STREAMED = 8;

export const RUNNER = "piecework-runner";
const STACK_LENGTH_MAX = 16384;

// The stack without the runner's own frames.
function stackOf(error) {
  const lines = String(error.stack ?? "").split("\n");
  return lines.filter((line) => line.startsWith("    at ") && !line.includes(RUNNER) && !line.includes("(native)")).join("\n");
}

function text(value) {
  try {
    return String(value);
  } catch {
    return "(the message could not be read)";
  }
}

// What was thrown and is no Error: its message, or its fields.
function thrown(value) {
  if (typeof value !== "object" || value === null) return text(value);
  if (typeof value.message === "string") return value.message;
  try {
    const fields = JSON.stringify(value);
    if (fields && fields !== "{}") return fields.slice(0, STACK_LENGTH_MAX);
  } catch {
    // It is told as a text.
  }
  return text(value);
}

// Type, message and stack of whatever was thrown.
export function told(error) {
  if (!(error instanceof Error)) {
    const kind = error === null ? "null" : typeof error;
    return { type: kind, message: thrown(error).toWellFormed(), stack: "" };
  }
  const type = text(error.name ?? "Error");
  let message = text(error.message);
  // Promise.any says nothing of its own.
  if (type === "AggregateError" && Array.isArray(error.errors)) {
    const others = error.errors.slice(0, 10).map((one) => text(one?.message ?? one));
    message = [message, ...others].filter(Boolean).join("; ");
  }
  const head = message ? `${type}: ${message}` : type;
  let stack = head + "\n" + stackOf(error);
  if (error.cause !== undefined) stack += `\nCaused by: ${told(error.cause).stack || text(error.cause)}`;
  // Half a letter is no text for the host.
  return { type: type.toWellFormed(), message: message.toWellFormed(), stack: stack.slice(0, STACK_LENGTH_MAX).toWellFormed() };
}

// A syntax error's place, from the first line of its stack: "at /main.mjs:3:7".
export function syntax(error) {
  const place = /(?:at |\()?\/?([^\s():]+):(\d+)(?::(\d+))?/.exec(String(error.stack ?? ""));
  return { ...told(error), file: place ? place[1] : "", line: place ? Number(place[2]) : 0 };
}
