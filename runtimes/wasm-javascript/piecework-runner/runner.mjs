// Runs a JavaScript function inside the component: loads the handler once, then answers calls.

import { DONE, INVALID, NO_HANDLER, RAISED, STREAMED, SYNTAX, UNSUPPORTED, syntax, told } from "./answer.mjs";
import { otherContract } from "./contract.mjs";
import { Invalid, bodyOf, pour, streamIn } from "./flow.mjs";
import { install as installForms } from "./forms.mjs";
import { checkZone, install as installGlobals } from "./globals.mjs";
import { install as installLikeness } from "./likeness.mjs";
import names from "./node-names.json";
import { install as installPackages } from "./packages.mjs";
import { install as installResponse } from "./response.mjs";
import { install as installStreams } from "./streams.mjs";
import { install as installTouch, trapAbsent } from "./touch.mjs";
import { clearAll, install as installTimers, runDue, soonest } from "./timers.mjs";

// Foreign code could answer in the handler's place with these, so they leave the global object here.
const host = {
  // Half a letter has no UTF-8.
  log: ((log) => (text) => log(text.toWellFormed()))(globalThis.hostLog),
  answer: globalThis.hostAnswer,
  head: globalThis.hostHead,
  chunk: globalThis.hostChunk,
  text: globalThis.hostText,
  body: globalThis.hostBody,
  random: globalThis.hostRandom,
  now: globalThis.hostNow,
  exit: globalThis.hostExit,
  touch: globalThis.hostTouch,
};
for (const name of Object.keys(globalThis)) if (/^(host|reserved)[A-Z]/.test(name)) delete globalThis[name];

installTouch(host);
installGlobals(host);
installTimers(host);
installStreams();
installResponse();
installPackages();
installLikeness();
trapAbsent(names.places);

// The language's own functions, before foreign code may replace them.
const { parse, stringify } = JSON;

// While an answer is written, values have the forms of forms.mjs; a function's own `JSON.stringify` knows nothing of them.
let answering = false;
installForms(() => answering);

let handler = null;
let functionName = "";
let version = 0;
let answered = true;
// Which call runs: what an earlier one left behind sends nothing more.
let turn = 0;

function answer(code, text) {
  if (answered) return;
  answered = true;
  turn += 1;
  clearAll();
  host.answer(code, text);
}

function raised(error) {
  answer(RAISED, stringify(told(error)));
}

function toJson(value) {
  answering = true;
  try {
    return stringify(value);
  } finally {
    answering = false;
  }
}

function returned(value) {
  let stream;
  try {
    stream = streamIn(value);
  } catch (error) {
    return failedStream(error);
  }
  if (stream) sent(stream);
  else output(value);
}

function sent(stream) {
  const mine = turn;
  pour(host, stream, toJson, () => turn === mine).then(
    () => turn === mine && answer(STREAMED, ""),
    (error) => turn === mine && failedStream(error),
  );
}

function failedStream(error) {
  if (error instanceof Invalid) answer(INVALID, error.message);
  else raised(error);
}

function output(value) {
  let text;
  try {
    text = toJson(value);
    if (text === undefined && value !== undefined) throw new TypeError(`a ${typeof value} is not JSON`);
  } catch (error) {
    const { type, message } = told(error);
    return type === "InternalError" ? raised(error) : answer(INVALID, `${type}: ${message}`);
  }
  answer(DONE, text ?? "null");
}

function loaded(module, setup) {
  const other = otherContract(module, setup);
  if (other) return answer(UNSUPPORTED, other);
  const found = setup.function ? module[setup.function] : (module.default ?? module.handler);
  const named = setup.function || "default";
  const called = typeof found === "function" ? found : found?.[named] ?? found?.default ?? found?.handler;
  if (typeof called !== "function") {
    const what = found === undefined ? "does not export" : "exports something that is no function as";
    return answer(NO_HANDLER, `\`${setup.entry}\` ${what} \`${named}\``);
  }
  handler = called;
  answer(DONE, "");
}

function failed(error) {
  if (error instanceof SyntaxError) answer(SYNTAX, stringify(syntax(error)));
  else raised(error);
}

export function load(text) {
  const setup = parse(text);
  functionName = setup.function_name;
  version = setup.version;
  checkZone(setup.env.TZ);
  Object.assign(process.env, setup.env);
  answered = false;
  import("/" + setup.entry).then((module) => loaded(module, setup)).catch(failed);
  return settle();
}

export function start(event, job, deadline, parameters, body) {
  answered = false;
  turn += 1;
  clearAll();
  const mine = turn;
  try {
    const result = call(parse(event), {
      job_id: job,
      function: functionName,
      version,
      deadline_ms: deadline,
      parameters: parameters === "null" ? null : parse(parameters),
      body: body ? bodyOf(host, () => turn === mine) : null,
    });
    if (result instanceof Promise) result.then(returned, raised);
    else if (typeof result?.then === "function") Promise.resolve(result).then(returned, raised);
    else returned(result);
  } catch (error) {
    raised(error);
  }
  return settle();
}

// `(event, context, callback)`: the callback answers, unless a promise does.
function call(event, context) {
  if (handler.length < 3) return handler(event, context);
  return new Promise((answers, fails) => {
    const callback = (error, value) => (error === null || error === undefined || error === false ? answers(value) : fails(error));
    const value = handler(event, context, callback);
    if (typeof value?.then === "function") value.then(answers, fails);
    else if (value !== undefined) answers(value);
  });
}

export function tick() {
  try {
    runDue();
  } catch (error) {
    raised(error);
  }
  return settle();
}

// The engine waits for what an async export returns; nothing waits here, as plain.mjs tells. QuickJS runs every job before
// control goes back to the host, so that the host finds the answer given, or a timer to wait for, or neither: then the
// handler's promise never settles.
const settled = { then() {} };
function settle() {
  return settled;
}

export { soonest };
