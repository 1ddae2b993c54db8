// Which page an id belongs to, by its form.

import { at } from "./router.svelte";

/** A block by its height, or what an id of 64 hex digits or with a prefix names. */
export function placeOf(text: string): string | undefined {
  const id = text.trim();
  if (/^\d{1,12}$/.test(id)) return at("ledger", "blocks", id);
  if (/^job_[0-9a-f]{32}$/.test(id)) return at("jobs", id);
  if (/^fn_[0-9a-f]{24}$/.test(id)) return at("functions", id);
  if (/^acc_[0-9a-f]{40}$/.test(id)) return at("ledger", "accounts", id);
  if (/^[0-9a-f]{64}$/i.test(id)) return `/ledger?q=${id}`;
  return undefined;
}
