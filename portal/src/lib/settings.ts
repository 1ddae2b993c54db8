// A function's settings as a form has them, and what a change of it sends.

import { words } from "../messages";
import type { Schemas } from "./api";
import { ucrFrom } from "./format";

export interface Variable {
  name: string;
  /** Absent for a secret that stays as it is. */
  value?: string;
  /** It was there before. */
  isKept?: boolean;
}

export interface Form {
  timeout_ms: number | null;
  memory_limit_mb: number | null;
  process_limit: number | null;
  disk_limit_mb: number | null;
  concurrency: number | null;
  /** Empty: as it is. */
  sandbox: string;
  budget: string;
  rerun_percent: number | null;
  public: boolean;
  strict: boolean;
  /** An entry a line. */
  egress: string;
  egress_limit_mb: number | null;
  region: string;
  env: Variable[];
  secrets: Variable[];
}

export function formOf(view: Schemas["FunctionView"]): Form {
  const env = Object.entries((view.env ?? {}) as Record<string, string>);
  return {
    timeout_ms: view.timeout_ms,
    memory_limit_mb: view.memory_limit_mb,
    process_limit: view.process_limit ?? null,
    disk_limit_mb: view.disk_limit_mb ?? null,
    concurrency: view.concurrency,
    sandbox: "",
    budget: view.budget ? String(view.budget.budget_ucr) : "",
    rerun_percent: view.rerun_percent ?? 0,
    public: view.public,
    strict: view.strict,
    egress: (view.egress ?? []).join("\n"),
    egress_limit_mb: view.egress_limit_mb || 64,
    region: view.placement?.region ?? "",
    env: env.map(([name, value]) => ({ name, value, isKept: true })),
    secrets: (view.secret_names ?? []).map((name) => ({ name, isKept: true })),
  };
}

export const listOf = (text: string) => text.split(/[\s,]+/).filter((entry) => entry !== "");

/** Those that are set or replaced, and those that are gone as `null`. */
function variables(before: Variable[], after: Variable[]): Record<string, string | null> {
  const changes: Record<string, string | null> = {};
  for (const one of before) if (!after.some((other) => other.name === one.name)) changes[one.name] = null;
  for (const { name, value } of after) {
    const old = before.find((other) => other.name === name);
    if (name !== "" && value !== undefined && (old === undefined || old.value !== value)) changes[name] = value;
  }
  return changes;
}

/** The body of the change: only what differs. */
export function changesOf(before: Form, after: Form): Schemas["UpdateFunction"] {
  const changes: Record<string, unknown> = {};
  for (const key of ["timeout_ms", "memory_limit_mb", "process_limit", "disk_limit_mb", "concurrency", "rerun_percent"] as const) {
    if (after[key] !== before[key] && typeof after[key] === "number") changes[key] = after[key];
  }
  for (const key of ["public", "strict"] as const) if (after[key] !== before[key]) changes[key] = after[key];
  if (after.sandbox.trim() !== "") changes["sandbox"] = after.sandbox.trim();
  if (after.budget.trim() !== before.budget) changes["budget_ucr"] = after.budget.trim() === "" ? 0 : ucrFrom(after.budget);
  const egress = listOf(after.egress);
  if (egress.join("\n") !== listOf(before.egress).join("\n")) changes["egress"] = egress;
  if (egress.length > 0 && after.egress_limit_mb !== before.egress_limit_mb) changes["egress_limit_mb"] = after.egress_limit_mb;
  if (after.region.trim() !== before.region) changes["placement"] = { region: after.region.trim() };
  for (const key of ["env", "secrets"] as const) {
    const of = variables(before[key], after[key]);
    if (Object.keys(of).length > 0) changes[key] = of;
  }
  return changes as Schemas["UpdateFunction"];
}

/** What can be said before the server is asked; the rest it says itself. */
export function wrongOf(form: Form): Record<string, string> {
  const wrong: Record<string, string> = {};
  if (form.budget.trim() !== "" && ucrFrom(form.budget) === undefined) wrong["budget_ucr"] = words.notAnAmount;
  for (const key of ["env", "secrets"] as const) {
    const names = form[key].map((one) => one.name);
    if (names.some((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))) wrong[key] = words.badVariable;
    else if (new Set(names).size !== names.length) wrong[key] = words.twiceVariable;
  }
  return wrong;
}

function told(value: Form[keyof Form]): string {
  if (Array.isArray(value)) return value.map((one) => (one.value === undefined ? one.name : `${one.name}=${one.value}`)).join(", ") || words.none;
  return value === "" || value === null ? words.none : String(value);
}

/** What both have changed, or what they have changed that is here as it was. */
export function conflictsOf(before: Form, mine: Form, theirs: Form): { key: string; mine: string; theirs: string }[] {
  const keys = Object.keys(before) as (keyof Form)[];
  const same = (a: Form, b: Form, key: keyof Form) => JSON.stringify(a[key]) === JSON.stringify(b[key]);
  return keys
    .filter((key) => !same(before, theirs, key) || (!same(before, mine, key) && !same(mine, theirs, key)))
    .map((key) => ({
      key,
      // A secret is shown to nobody, not even to who has just typed it.
      mine: key === "secrets" ? mine.secrets.map((one) => one.name).join(", ") || words.none : told(mine[key]),
      theirs: told(theirs[key]),
    }));
}
