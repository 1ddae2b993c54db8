// What became of a job, in the order of time, as spans of one axis.

import type { Schemas } from "./api";

export interface Span {
  id: string;
  /** Milliseconds after the job was created. */
  from: number;
  to: number;
  tone: "wait" | "start" | "run" | "pay" | "bad";
}

const ON_THE_LEDGER = ["metered", "received", "claimed", "paid", "refunded"];
const BAD = ["failed", "timed_out", "cancelled", "expired"];

/** Less is shown as nothing. */
const LEAST_MS = 0.01;

/** Two parts of one axis each: until the result, and until the payment, which takes a thousand times as long. */
export function partsOf(spans: Span[]): { id: "result" | "payment"; spans: Span[]; from: number; to: number }[] {
  const ended = Math.max(0, ...spans.filter((span) => span.tone !== "pay").map((span) => span.to));
  const parts = [
    { id: "result" as const, spans: spans.filter((span) => span.tone !== "pay"), from: 0, to: ended },
    { id: "payment" as const, spans: spans.filter((span) => span.tone === "pay"), from: ended, to: Math.max(ended, ...spans.map((span) => span.to)) },
  ];
  return parts.filter((part) => part.spans.length > 0);
}

/**
 * The measured parts first (waiting, fetching code, running), then what was recorded of it, from one step to the next. The clock of
 * the history is that of whoever saw a step; a step before its predecessor is drawn as at the same moment.
 */
export function spansOf(job: Schemas["JobView"], history: Schemas["JobEvent"][]): Span[] {
  const begin = Date.parse(job.created_at);
  const spans: Span[] = [];
  const push = (id: string, from: number, to: number, tone: Span["tone"]) => spans.push({ id, from, to: Math.max(to, from), tone });
  const queued = job.queued_ms;
  push("queued", 0, queued, "wait");
  const started = queued + job.pull_ms;
  if (job.pull_ms >= LEAST_MS) push("pull", queued, started, "start");
  const ran = started + job.duration_ms;
  if (job.provider) push("run", started, ran, BAD.includes(job.state) ? "bad" : "run");
  let last = ran;
  for (const step of history.filter((one) => ON_THE_LEDGER.includes(one.event))) {
    const at = Math.max(Date.parse(step.at) - begin, last);
    push(step.event, last, at, "pay");
    last = at;
  }
  return spans.filter((span) => Number.isFinite(span.from) && Number.isFinite(span.to));
}
