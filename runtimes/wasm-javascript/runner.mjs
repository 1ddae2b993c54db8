export async function load(setup) { hostLog(0, setup); const m = await import("/" + JSON.parse(setup).entry); globalThis.h = m.default; hostLoaded(0, ""); }
export async function start(event, context) { Promise.resolve(h(JSON.parse(event), JSON.parse(context))).then((v) => hostFinish(0, JSON.stringify(v))); }
export async function tick() {}
