// Numbers, times and amounts as people read them. Each keeps its unit.

import type { Ucr } from "./api";

const grouped = new Intl.NumberFormat("en");
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const twoDigits = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export function count(value: number | null | undefined): string {
  return typeof value === "number" && Number.isFinite(value) ? grouped.format(value) : "–";
}

/** Amounts above 2^53 come as text, so all are read as whole numbers of any size. */
export function ucrOf(amount: Ucr | null | undefined): bigint | undefined {
  try {
    return amount === null || amount === undefined ? undefined : BigInt(amount);
  } catch {
    return undefined;
  }
}

/** As the command line shows it: `1,234,567 ucr`. */
export function ucr(amount: Ucr | bigint | null | undefined): string {
  const value = typeof amount === "bigint" ? amount : ucrOf(amount);
  return value === undefined ? "–" : `${grouped.format(value)} ucr`;
}

/** In credits, to the last of their six digits: `1.234567`. */
export function credits(amount: Ucr | null | undefined): string {
  const value = ucrOf(amount);
  if (value === undefined) return "–";
  const [sign, size] = value < 0n ? ["−", -value] : ["", value];
  const fraction = String(size % 1_000_000n).padStart(6, "0").replace(/0+$/, "");
  return `${sign}${grouped.format(size / 1_000_000n)}${fraction ? `.${fraction}` : ""}`;
}

/** What a person typed: whole `ucr`, or credits as `1.5cr`, as at the command line. */
export function ucrFrom(text: string): number | undefined {
  const trimmed = text.trim().replaceAll(",", "");
  const whole = /^(\d{1,15})(ucr)?$/.exec(trimmed);
  if (whole?.[1]) return safe(BigInt(whole[1]));
  const parts = /^(\d{1,9})(?:\.(\d{1,6}))?\s*cr$/.exec(trimmed);
  return parts?.[1] ? safe(BigInt(parts[1] + (parts[2] ?? "").padEnd(6, "0"))) : undefined;
}
function safe(value: bigint): number | undefined {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined;
}

export function ms(value: number | null | undefined): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value < 0.01) return "0 ms";
  if (value < 1) return `${twoDigits.format(value)} ms`;
  if (value < 100) return `${oneDigit.format(value)} ms`;
  if (value < 1_000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${twoDigits.format(value / 1_000)} s`;
  if (value < 3_600_000) return `${Math.floor(value / 60_000)} min ${Math.round((value % 60_000) / 1_000)} s`;
  return `${oneDigit.format(value / 3_600_000)} h`;
}

export function bytes(value: number | null | undefined): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value < 1_024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let scaled = value / 1_024;
  let unit = 0;
  while (scaled >= 1_000 && unit < units.length - 1) {
    scaled /= 1_024;
    unit += 1;
  }
  return `${oneDigit.format(scaled)} ${units[unit]}`;
}

export function percent(ratio: number | null | undefined): string {
  return typeof ratio === "number" && Number.isFinite(ratio) ? `${oneDigit.format(ratio * 100)} %` : "–";
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "narrow" });
const exactly = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium",
  timeStyle: "medium",
});

/** Date and time, in this browser's time zone. */
export function day(at: string | null | undefined): string {
  const time = at ? Date.parse(at) : NaN;
  return Number.isNaN(time) ? "–" : exactly.format(time);
}

/** The time of day to the millisecond, in this browser's time zone. */
export function clockTime(at: string | null | undefined): string {
  const time = at ? new Date(at) : undefined;
  if (!time || Number.isNaN(time.getTime())) return "–";
  const digits = (value: number, count: number) => String(value).padStart(count, "0");
  const [hours, minutes, seconds] = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => digits(part, 2));
  return `${hours}:${minutes}:${seconds}.${digits(time.getMilliseconds(), 3)}`;
}

export function exact(at: string | null | undefined): string {
  const time = at ? Date.parse(at) : NaN;
  return Number.isNaN(time) ? "–" : `${exactly.format(time)} (${at})`;
}

export function ago(at: string | null | undefined, now: number): string {
  const time = at ? Date.parse(at) : NaN;
  if (Number.isNaN(time)) return "–";
  const seconds = Math.round((time - now) / 1_000);
  const size = Math.abs(seconds);
  // Clocks differ a little.
  if (size < 3) return "now";
  if (size < 60) return relative.format(seconds, "second");
  if (size < 3_600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86_400) return relative.format(Math.round(seconds / 3_600), "hour");
  return relative.format(Math.round(seconds / 86_400), "day");
}

/** The beginning of something long that is known by its beginning. */
export function short(id: string | null | undefined, length = 12): string {
  if (!id) return "–";
  return id.length > length + 2 ? `${id.slice(0, length)}…` : id;
}

export function json(value: unknown): string {
  return value === undefined ? "" : JSON.stringify(value, null, 2);
}

/**
 * Text of strangers, harmless to look at: characters that turn the direction of writing, or that nobody sees, are shown by their
 * number, and the rest of what is too long is left out.
 */
export function shown(text: unknown, max = 100_000): string {
  const whole = typeof text === "string" ? text : (json(text) ?? "");
  const cut = whole.length > max ? `${whole.slice(0, max)}\n… ${count(whole.length - max)} more characters` : whole;
  return cut.replace(
    // eslint-disable-next-line no-control-regex
    /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (hidden) => `\\u${hidden.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The items of an answer; none if it has no list. */
export function listOf<T>(items: T[] | null | undefined): T[] {
  return Array.isArray(items) ? items.filter((item) => item !== null && item !== undefined) : [];
}
