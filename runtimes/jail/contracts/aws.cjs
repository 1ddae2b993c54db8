// AWS Lambda: the context object, callbacks, response streaming, and for calls at a URL the event and the answer of a Function
// URL, payload version 2.0.
//
// https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
'use strict';

const { PassThrough } = require('node:stream');
const { isHttp, requestOf, statusOf } = require('./request.cjs');

// As text go these; everything else is base64.
const TEXTS = /^(text\/|application\/(json|xml|javascript))/i;
const STREAMS = Symbol.for('awslambda.streamifyResponse');
const HEAD = Symbol('head');

// A handler of the oldest kind returns nothing and tells by the context, at once or later. `it.done` of an iterator is no call.
const TELLS = /\.(done|succeed|fail)\s*\(/;

module.exports = (target, about) => {
  const tells = target.length >= 2 && TELLS.test(Function.prototype.toString.call(target));
  return (event, context) => called([target, tells], [event, context], about);
};

async function called([target, tells], [event, context], about) {
  const given = contextOf(context, about);
  const http = isHttp(event);
  const passed = http ? await payload(requestOf(event, context), event, given) : event;
  if (target[STREAMS]) return streamed(target, passed, given, http);
  const told = tells ? toldBy(given) : null;
  const returned = about.withCallback(target, passed, given);
  // `return setTimeout(...)` is no answer either.
  const isNothing = returned === undefined || typeof returned?.hasRef === 'function';
  const value = await (told ? Promise.race(isNothing ? [told] : [told, returned]) : returned);
  return http ? answer(value) : value;
}

function toldBy(context) {
  const told = new Promise((yes, no) => {
    context.succeed = yes;
    context.fail = no;
    context.done = (error, value) => (error === null || error === undefined ? yes(value) : no(error));
  });
  told.catch(() => {});
  return told;
}

// What a program finds as `awslambda`.
module.exports.global = {
  streamifyResponse: (handler) => Object.assign((...given) => handler(...given), { [STREAMS]: handler }),
  HttpResponseStream: { from: (stream, head) => Object.assign(stream, { [HEAD]: head }) },
};

function contextOf(context, { settings }) {
  const name = settings.name;
  return {
    ...context,
    awsRequestId: context.job_id,
    functionName: name,
    functionVersion: String(settings.version),
    invokedFunctionArn: `arn:aws:lambda:local:000000000000:function:${name}`,
    memoryLimitInMB: String(settings.memory_mb ?? 128),
    logGroupName: `/aws/lambda/${name}`,
    logStreamName: String(settings.version),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, context.deadline_ms - Date.now()),
  };
}

function joined(pairs) {
  const together = {};
  for (const [name, value] of pairs) together[name] = Object.hasOwn(together, name) ? `${together[name]},${value}` : value;
  return together;
}

async function payload(request, event, context) {
  const headers = joined(request.headers.filter(([name]) => name !== 'cookie'));
  const cookies = request.headers.filter(([name]) => name === 'cookie').flatMap(([, value]) => value.split(';').map((one) => one.trim()));
  const now = new Date();
  const body = request.body ?? Buffer.concat(await all(request.stream));
  const [, day, month, year, time] = now.toUTCString().match(/, (\d+) (\w+) (\d+) ([\d:]+)/);
  const made = {
    version: '2.0',
    routeKey: '$default',
    rawPath: request.path,
    rawQueryString: request.query,
    headers,
    requestContext: {
      accountId: 'anonymous',
      apiId: context.functionName,
      domainName: request.host,
      domainPrefix: request.host.split('.')[0],
      http: {
        method: request.method,
        path: request.path,
        protocol: 'HTTP/1.1',
        sourceIp: request.client.address ?? '',
        userAgent: headers['user-agent'] ?? '',
      },
      requestId: context.awsRequestId,
      routeKey: '$default',
      stage: '$default',
      time: `${day}/${month}/${year}:${time} +0000`,
      timeEpoch: now.getTime(),
    },
    isBase64Encoded: false,
  };
  if (cookies.length) made.cookies = cookies;
  if (event.query_list?.length) made.queryStringParameters = joined(event.query_list);
  if (body.length) Object.assign(made, textOf(body, headers));
  return made;
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

function textOf(body, headers) {
  if (TEXTS.test(headers['content-type'] ?? 'text/plain') && !('content-encoding' in headers)) {
    const text = body.toString('utf8');
    if (!text.includes('\ufffd')) return { body: text, isBase64Encoded: false };
  }
  return { body: body.toString('base64'), isBase64Encoded: true };
}

// An answer without a status is one in JSON, also where it is a text.
function answer(value) {
  if (typeof value !== 'object' || value === null || value.statusCode === undefined) {
    const body = JSON.stringify(value);
    return { status: 200, headers: { 'content-type': 'application/json' }, ...(body === undefined ? {} : { body }) };
  }
  const pairs = Object.entries(value.headers ?? {}).map(([name, one]) => [name, String(one)]);
  for (const cookie of value.cookies ?? []) pairs.push(['set-cookie', String(cookie)]);
  if (!pairs.some(([name]) => name.toLowerCase() === 'content-type')) pairs.push(['content-type', 'application/json']);
  for (const [name, several] of Object.entries(value.multiValueHeaders ?? {})) {
    for (let at = pairs.length - 1; at >= 0; at--) if (pairs[at][0].toLowerCase() === name.toLowerCase()) pairs.splice(at, 1);
    for (const one of several) pairs.push([name, String(one)]);
  }
  const said = { status: statusOf(value.statusCode), header_list: pairs };
  if (value.body === undefined || value.body === null) return said;
  if (value.isBase64Encoded) return { ...said, body_base64: String(value.body) };
  return { ...said, body: typeof value.body === 'string' ? value.body : JSON.stringify(value.body) };
}

// The head is known when the first bytes come.
async function streamed(target, event, context, http) {
  const stream = new PassThrough();
  stream.setContentType = (kind) => (stream.kind = kind);
  const ended = Promise.resolve(target[STREAMS](event, stream, context));
  ended.then(null, (error) => stream.destroy(error));
  await new Promise((yes, no) => {
    stream.once('readable', yes);
    stream.once('end', yes);
    stream.once('error', no);
  });
  if (!http) return stream;
  const { statusCode = 200, headers = {}, cookies = [] } = stream[HEAD] ?? {};
  const pairs = Object.entries(headers).map(([name, one]) => [name, String(one)]);
  for (const cookie of cookies) pairs.push(['set-cookie', String(cookie)]);
  if (!pairs.some(([name]) => name.toLowerCase() === 'content-type')) pairs.push(['content-type', stream.kind ?? 'application/octet-stream']);
  return { status: statusOf(statusCode), headers: pairs, body: stream };
}
