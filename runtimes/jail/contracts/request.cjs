// The request behind the event of a call at a URL. A direct call may give the same fields; what is missing has a default.
'use strict';

const TEXTS = /^(text\/|application\/(json|javascript|xml|problem\+json)|image\/svg\+xml)/i;

function isHttp(event) {
  return typeof event === 'object' && event !== null && 'method' in event && 'raw_path' in event && 'header_list' in event;
}

// The body's own bytes.
function bodyOf(event) {
  if (typeof event.body_base64 === 'string') return Buffer.from(event.body_base64, 'base64');
  const text = event.raw_body ?? event.body ?? '';
  return Buffer.from(typeof text === 'string' ? text : JSON.stringify(text), 'utf8');
}

function requestOf(event, context) {
  if (typeof event !== 'object' || event === null) {
    throw new TypeError('this function answers HTTP requests: call it by its URL, or with an event that has `method` and `path`');
  }
  const path = event.raw_path ?? event.path ?? '/';
  const headers = event.header_list ?? Object.entries(event.headers ?? {});
  return {
    method: event.method ?? 'GET',
    path,
    url: event.raw_query ? `${path}?${event.raw_query}` : path,
    query: event.raw_query ?? '',
    headers,
    scheme: event.scheme ?? 'http',
    client: event.client ?? {},
    basePath: event.base_path ?? '',
    body: context.body ? null : bodyOf(event),
    stream: context.body,
    host: headers.find(([name]) => name === 'host')?.[1] ?? 'localhost',
  };
}

// A status that no answer has would pass for data.
function statusOf(status) {
  const number = Number(status);
  if (Number.isInteger(number) && number >= 200 && number < 600) return number;
  throw new RangeError(`the status of an answer is 200 to 599, and this one is ${String(status).slice(0, 20)}`);
}

// An answer in one piece. Text is kept readable, for whoever looks at the job.
function whole(status, pairs, body) {
  const said = { status, header_list: pairs };
  if (!body || body.length === 0) return said;
  const kind = pairs.find(([name]) => name.toLowerCase() === 'content-type')?.[1] ?? '';
  if (TEXTS.test(kind)) {
    const text = body.toString('utf8');
    if (!text.includes('\ufffd')) return { ...said, body: text };
  }
  return { ...said, body_base64: body.toString('base64') };
}

module.exports = { isHttp, requestOf, statusOf, whole };
