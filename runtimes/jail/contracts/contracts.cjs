// Contracts: the interfaces that other people's programs have, each met by an adapter that is called like a handler.
//
//   fetch    `export default { fetch(request, env, ctx) }` (Workers, Hono, Bun, Deno)
//   node     `(req, res)` (Express, Connect, Koa, Fastify, `http.createServer`)
//   lambda   an AWS Lambda handler; at a URL it gets the event of a Function URL, payload 2.0
//
// The runner asks `found` once a module is imported.
'use strict';

const ADAPTERS = { fetch: './fetch.cjs', node: './node_http.cjs', lambda: './aws.cjs' };
// Names under which frameworks and consoles have a handler exported where there is no default export.
const LAMBDA_FILES = /(^|\/)(index|lambda|lambda_function|handler)\.(m|c)?[jt]s(\.mjs)?$/;

// The handler that stands in for `target`; null for an unknown contract.
function adapter(contract, target, about) {
  return ADAPTERS[contract] ? require(ADAPTERS[contract])(target, about) : null;
}

// The name and the contract of what a module offers, and the thing itself; null where that is a plain handler, or nothing.
function found(module, { file, function: name }, servers) {
  if (name !== 'default') {
    const target = module[name] ?? module.default?.[name];
    const contract = contractOf(target);
    return contract && { name, contract, target };
  }
  const exported = module.default;
  const contract = contractOf(exported);
  if (contract) return { name, contract, target: exported };
  if (typeof exported === 'function') return null;
  for (const each of ['app', 'server', 'fetch']) {
    const target = each === 'fetch' ? module : (module[each] ?? exported?.[each]);
    if (target && contractOf(target)) return { name: each, contract: contractOf(target), target };
  }
  const handler = exported?.handler ?? module.handler;
  if (typeof handler === 'function') {
    const isLambda = LAMBDA_FILES.test(file) || handler[Symbol.for('awslambda.streamifyResponse')];
    return isLambda ? { name: 'handler', contract: 'lambda', target: handler } : null;
  }
  if (servers.length > 0) return { name: 'server', contract: 'node', target: servers[servers.length - 1] };
  return null;
}

// What a deployed name means when it is loaded again.
function named(module, name, servers) {
  if (name === 'fetch' && typeof module.fetch === 'function') return module;
  return module[name] ?? module.default?.[name] ?? (name === 'server' ? servers[servers.length - 1] : undefined);
}

function contractOf(target) {
  if (target === null || (typeof target !== 'object' && typeof target !== 'function')) return null;
  if (typeof target.fetch === 'function') return 'fetch';
  if (typeof target === 'object') {
    const koa = typeof target.callback === 'function' && typeof target.use === 'function';
    const fastify = typeof target.routing === 'function' && typeof target.ready === 'function';
    const server = typeof target.emit === 'function' && typeof target.listen === 'function';
    return koa || fastify || server ? 'node' : null;
  }
  if (typeof target.handle === 'function' && typeof target.use === 'function') return 'node';
  return takesRequestAndResponse(target) ? 'node' : null;
}

// A plain function says by the names of its parameters that it is called with Node's request and response.
function takesRequestAndResponse(target) {
  if (target.length < 2) return false;
  const head = Function.prototype.toString.call(target).slice(0, 200);
  return /^(?:async\s+)?(?:function\b[^(]*)?\(?\s*_?(req|request)\s*,\s*_?(res|response)\b/.test(head);
}

// Servers that the program lets listen while it is imported: calls go to them, and no port is opened.
function catchServers(servers) {
  const { Server } = require('node:net');
  const listen = Server.prototype.listen;
  Server.prototype.listen = function (...given) {
    if (this.listenerCount('request') === 0) return listen.apply(this, given);
    servers.push(this);
    const called = given.find((one) => typeof one === 'function');
    if (called) this.once('listening', called);
    this.address = () => ({ address: '127.0.0.1', family: 'IPv4', port: Number(given[0]) || 0 });
    process.nextTick(() => this.emit('listening'));
    return this;
  };
  return () => {
    Server.prototype.listen = listen;
  };
}

// What programs for AWS Lambda find under this name.
const awslambda = () => require(ADAPTERS.lambda).global;

module.exports = { adapter, awslambda, found, named, catchServers };
