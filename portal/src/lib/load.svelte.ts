// What a page asked the server for, and how that went.

import { live } from "./live.svelte";
import { Refused } from "./api";

export class Load<T> {
  value = $state.raw<T | undefined>(undefined);
  refused = $state.raw<Refused | undefined>(undefined);
  isLoading = $state(true);
  /** When the value came, in milliseconds. */
  at = $state(0);
  #ask: (signal: AbortSignal) => Promise<T>;
  #last: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(ask: (signal: AbortSignal) => Promise<T>) {
    this.#ask = ask;
  }

  /** Asks anew. What is there stays until the answer comes. */
  async again(): Promise<void> {
    this.#last?.abort();
    const own = new AbortController();
    this.#last = own;
    this.isLoading = true;
    try {
      const value = await this.#ask(own.signal);
      if (own.signal.aborted) return;
      this.value = value;
      this.refused = undefined;
      this.at = Date.now();
    } catch (error) {
      if (own.signal.aborted) return;
      this.refused = error instanceof Refused ? error : new Refused(0, { code: "portal.bug", message: String(error) });
    }
    this.isLoading = false;
  }

  /** Asks anew in a moment, once for all who say so until then. */
  soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.again();
    }, SOON_MS);
  }

  /** Puts in what the server has answered to a change. */
  put(value: T): void {
    this.#last?.abort();
    this.value = value;
    this.refused = undefined;
    this.isLoading = false;
    this.at = Date.now();
  }

  stop(): void {
    this.#last?.abort();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/** A burst of events is one request. */
const SOON_MS = 120;

/**
 * For a component: asks at once, again whenever `ask` reads something else than before, and when an event of one of the kinds
 * comes (`job`, `job:ID`). After the connection was lost, everything is asked for again.
 */
export function load<T>(ask: (signal: AbortSignal) => Promise<T>, kinds: string[] | (() => string[]) = []): Load<T> {
  const loaded = new Load<T>(ask);
  // What `ask` reads before its first wait is what this depends on.
  $effect(() => {
    void loaded.again();
    return () => loaded.stop();
  });
  $effect(() => live.listen(typeof kinds === "function" ? kinds() : kinds, () => loaded.soon()));
  return loaded;
}
