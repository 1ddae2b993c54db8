// Checks proofs: the same code as `piecework ledger verify`, as WebAssembly. In a worker, because its policy alone lets it make a module;
// it can do nothing else.

import url from "../../build/checker.wasm?url";

interface Checker {
  clear(): void;
  give(byte: number): void;
  check(): number;
  take(at: number): number;
}

let checker: Promise<Checker | undefined> | undefined;

/** `undefined` where the portal was built without it. */
async function load(): Promise<Checker | undefined> {
  const bytes = await (await fetch(url)).arrayBuffer();
  if (bytes.byteLength === 0) return undefined;
  const { instance } = await WebAssembly.instantiate(bytes, {});
  return instance.exports as unknown as Checker;
}

export interface Asked {
  id: number;
  /** JSON for the checker; absent to have it loaded. */
  question?: string;
}
export type Told = { id: number; took: number } & ({ answer: string } | { state: "ready" | "missing" | "failed"; why?: string });

async function answer(asked: Asked): Promise<Told> {
  try {
    checker ??= load();
    const own = await checker;
    if (!own) return { id: asked.id, took: 0, state: "missing" };
    if (asked.question === undefined) return { id: asked.id, took: 0, state: "ready" };
    const began = performance.now();
    own.clear();
    for (const byte of new TextEncoder().encode(asked.question)) own.give(byte);
    const bytes = new Uint8Array(own.check());
    for (let at = 0; at < bytes.length; at += 1) bytes[at] = own.take(at);
    return { id: asked.id, took: performance.now() - began, answer: new TextDecoder().decode(bytes) };
  } catch (error) {
    // A module that has trapped is not asked again.
    checker = undefined;
    return { id: asked.id, took: 0, state: "failed", why: String(error) };
  }
}

addEventListener("message", (event: MessageEvent<Asked>) => void answer(event.data).then((told) => postMessage(told)));
