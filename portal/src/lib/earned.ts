// What computers earned, from what the ledger says of their jobs.

import type { Schemas } from "./api";
import { ucrOf } from "./format";

export interface Earned {
  /** Midnight in UTC. */
  day: string;
  developer: string;
  /** The digest of its code: the ledger says no names of functions. */
  code: string;
  jobs: number;
  /** Paid, less commission. */
  settled: bigint;
  /** Metered and not paid: at risk until it is. */
  open: bigint;
}

interface Body {
  price_ucr?: number | string;
  commission_ucr?: number | string;
}

/** By day, developer and code, newest first. */
export function byDay(jobs: Schemas["LedgerJob"][]): { jobs: number; days: Earned[] } {
  const all = new Map<string, Earned>();
  for (const job of jobs) {
    const last = job.events.at(-1);
    if (!last) continue;
    const day = `${last.at.slice(0, 10)}T00:00:00Z`;
    const developer = job.developer ?? "–";
    const settled = job.settled as { code?: unknown; metered?: Body } | null | undefined;
    const code = typeof settled?.code === "string" ? settled.code : "";
    const key = `${day} ${developer} ${code}`;
    const own = all.get(key) ?? { day, developer, code, jobs: 0, settled: 0n, open: 0n };
    own.jobs += 1;
    const paid = job.events.find((event) => event.kind === "job_paid")?.body as Body | undefined;
    if (paid) own.settled += (ucrOf(paid.price_ucr) ?? 0n) - (ucrOf(paid.commission_ucr) ?? 0n);
    else own.open += ucrOf(settled?.metered?.price_ucr) ?? 0n;
    all.set(key, own);
  }
  const order = (one: Earned) => `${one.developer} ${one.code}`;
  const days = [...all.values()].sort((a, b) => (a.day === b.day ? (order(a) < order(b) ? -1 : 1) : a.day < b.day ? 1 : -1));
  return { jobs: jobs.length, days };
}
