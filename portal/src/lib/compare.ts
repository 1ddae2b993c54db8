// What the latest jobs say of the sandboxes that they ran in.

import type { Schemas } from "./api";

export interface Wall {
  name: string;
  jobs: number;
  failed: number;
  cold: number;
  /** Milliseconds from the order to the end of the run. */
  coldTimes: number[];
  warmTimes: number[];
  cpuMs: number;
  memoryPeakBytes: number;
}

/** Those that ran and were created at `from` or later, the most used sandbox first. */
export function byWall(jobs: Schemas["JobView"][], from: number): Wall[] {
  const all = new Map<string, Wall>();
  for (const job of jobs) {
    if (!job.sandbox || typeof job.cold !== "boolean" || Date.parse(job.created_at) < from) continue;
    const wall = all.get(job.sandbox) ?? { name: job.sandbox, jobs: 0, failed: 0, cold: 0, coldTimes: [], warmTimes: [], cpuMs: 0, memoryPeakBytes: 0 };
    wall.jobs += 1;
    wall.failed += job.state === "succeeded" ? 0 : 1;
    wall.cold += job.cold ? 1 : 0;
    (job.cold ? wall.coldTimes : wall.warmTimes).push(job.queued_ms + job.pull_ms + job.duration_ms);
    wall.cpuMs += job.cpu_us / 1_000;
    wall.memoryPeakBytes = Math.max(wall.memoryPeakBytes, job.memory_peak_bytes);
    all.set(wall.name, wall);
  }
  return [...all.values()].sort((a, b) => b.jobs - a.jobs);
}

/** The value that this share of all do not exceed. */
export function quantile(values: number[], share: number): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
