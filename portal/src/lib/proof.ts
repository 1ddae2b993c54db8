// The checker of proofs, from a page. Loaded when somebody wants to check one.

import url from "./proof.worker?worker&url";
import type { Asked, Told } from "./proof.worker";

export interface Verdict {
  verified: boolean;
  code?: string;
  message?: string;
  network?: string;
  changes?: number;
  bytes?: number;
  job?: {
    id: string;
    entries: { height: number; timestamp_ms: number; entry: { provider: string } }[];
    paid: ([string, string] | null)[];
  };
  account?: { id: string; height: number; state: { name: string; posted: number | string; held: number | string } };
}

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string };
}
const types = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes;
/** Makes the address of this worker and of no other script. */
const policy = types?.createPolicy("piecework-worker", {
  createScriptURL: (asked) => {
    if (asked !== url) throw new TypeError("this is not the worker");
    return asked;
  },
});

let worker: Worker | undefined;
let count = 0;
const waiting = new Map<number, (told: Told) => void>();

function started(): Worker {
  if (worker) return worker;
  worker = new Worker(policy ? policy.createScriptURL(url) : url, { type: "module" });
  worker.addEventListener("message", (event: MessageEvent<Told>) => {
    waiting.get(event.data.id)?.(event.data);
    waiting.delete(event.data.id);
  });
  worker.addEventListener("error", () => {
    for (const [id, tell] of waiting) tell({ id, took: 0, state: "failed" });
    waiting.clear();
    worker = undefined;
  });
  return worker;
}

function ask(question?: string): Promise<Told> {
  const asked: Asked = { id: (count += 1), ...(question === undefined ? {} : { question }) };
  return new Promise((resolve) => {
    waiting.set(asked.id, resolve);
    started().postMessage(asked);
  });
}

/** Loads the checker; from then on it needs no network. */
export async function prepare(): Promise<"ready" | "missing" | "failed"> {
  const told = await ask();
  return "state" in told ? told.state : "ready";
}

/** `of`: the job's id, or the account's name or id. */
export async function check(proof: string, genesis: string, of: string): Promise<{ verdict: Verdict; took: number } | "missing" | "failed"> {
  const told = await ask(JSON.stringify({ proof, genesis, of }));
  if (!("answer" in told)) return told.state === "missing" ? "missing" : "failed";
  return { verdict: JSON.parse(told.answer) as Verdict, took: told.took };
}
