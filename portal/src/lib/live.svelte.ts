// One stream of events for the whole portal. It ends while nobody looks, and comes back by itself.

import { stream } from "./api";

export interface LiveEvent {
  kind: string;
  at: string;
  body: Record<string, unknown>;
}
type Hear = (event: LiveEvent) => void;

const WAIT_MIN_MS = 500;
const WAIT_MAX_MS = 2_000;
/** The server says something every second, if only that it is there. */
const SILENCE_MS = 2_500;
/** A server that takes longer to answer at all is as good as none, until it does. */
const ANSWER_MS = 10_000;
const HIDDEN_MS = 20_000;
/** An event that a proxy cut into pieces without an end. */
const EVENT_CHARACTERS_MAX = 4 << 20;

/** The time, for what is shown as its age; stands still while nobody looks. */
export const clock = $state({ now: Date.now() });

class Live {
  /** `off` until somebody is signed in and while nobody looks. */
  state = $state<"off" | "connecting" | "on" | "lost">("off");
  /** When the server was last heard, in milliseconds: what is shown is from then. */
  heardAt = $state.raw(Date.now());
  #hear = new Map<string, Set<Hear>>();
  #abort: AbortController | undefined;
  #wanted = false;
  #broken: AbortController | undefined;
  #wake: (() => void) | undefined;
  #hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  #ageTimer: ReturnType<typeof setInterval> | undefined;

  constructor() {
    // The browser knows before the stream ends, and when it is worth another try.
    addEventListener("offline", () => this.#broken?.abort());
    addEventListener("online", () => this.#wake?.());
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#hiddenTimer);
      if (document.hidden) this.#hiddenTimer = setTimeout(() => this.#pause(), HIDDEN_MS);
      else if (this.#wanted && !this.#abort) void this.#run(true);
    });
  }

  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    void this.#run(false);
  }

  stop(): void {
    this.#wanted = false;
    this.#pause();
  }

  #pause(): void {
    this.#abort?.abort();
    this.#abort = undefined;
    this.#turn("off");
  }

  /** While the connection is lost, the age of what is shown counts on. */
  #turn(state: Live["state"]): void {
    if (state === "on") this.heardAt = Date.now();
    this.state = state;
    clock.now = Date.now();
    clearInterval(this.#ageTimer);
    if (state === "lost") this.#ageTimer = setInterval(() => (clock.now = Date.now()), 1_000);
  }

  /** Calls for each event of these kinds (`job`, or `job:ID` for one), and after a loss. */
  listen(kinds: string[], hear: Hear): () => void {
    const all = [...kinds, "again"];
    for (const kind of all) {
      const set = this.#hear.get(kind) ?? new Set();
      this.#hear.set(kind, set.add(hear));
    }
    return () => all.forEach((kind) => this.#hear.get(kind)?.delete(hear));
  }

  #tell(kind: string, event: LiveEvent): void {
    for (const hear of this.#hear.get(kind) ?? []) hear(event);
  }

  async #run(missed: boolean): Promise<void> {
    const own = new AbortController();
    this.#abort = own;
    let wait = WAIT_MIN_MS;
    let hasMissed = missed;
    this.#turn("connecting");
    while (!own.signal.aborted) {
      try {
        const broken = new AbortController();
        this.#broken = broken;
        const slow = setTimeout(() => broken.abort(), ANSWER_MS);
        const opened = stream("/events", AbortSignal.any([own.signal, broken.signal]));
        const reader = (await opened.finally(() => clearTimeout(slow))).getReader();
        this.#turn("on");
        wait = WAIT_MIN_MS;
        if (hasMissed) this.#tell("again", { kind: "again", at: new Date().toISOString(), body: {} });
        await this.#read(reader).finally(() => broken.abort());
      } catch {
        // Said below; the cause is in the browser's own log.
      }
      if (own.signal.aborted) return;
      this.#turn("lost");
      hasMissed = true;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait);
      });
      wait = Math.min(wait * 2, WAIT_MAX_MS);
    }
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error("silent")), SILENCE_MS);
      });
      const part = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (part.done) return;
      this.heardAt = Date.now();
      text += decoder.decode(part.value, { stream: true });
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      if (text.length > EVENT_CHARACTERS_MAX) throw new Error("an event without an end");
      for (const event of events) this.#take(event);
    }
  }

  #take(text: string): void {
    const data = text
      .split("\n")
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trimStart())
      .join("\n");
    if (data === "") return;
    let event: LiveEvent | null;
    try {
      event = JSON.parse(data) as LiveEvent | null;
    } catch {
      return;
    }
    if (event === null || typeof event !== "object") return;
    const kind = String(event.kind);
    this.#tell("*", event);
    this.#tell(kind, event);
    const id = event.body?.["id"];
    if (typeof id === "string") this.#tell(`${kind}:${id}`, event);
  }
}

export const live = new Live();

setInterval(() => {
  if (!document.hidden) clock.now = Date.now();
}, 5_000);
document.addEventListener("visibilitychange", () => (clock.now = Date.now()));
