// Keys that work everywhere, and those of the page. None does anything while somebody types.

export interface Key {
  /** As it is shown: `g j`, `n`, `/`. */
  keys: string;
  what: string;
  run: () => void;
}

export const keys = $state<{ page: Key[] }>({ page: [] });

/** For a page, while it is there. */
export function pageKeys(list: Key[]): void {
  $effect(() => {
    keys.page = [...list];
    return () => {
      keys.page = [];
    };
  });
}

export function isTyping(event: KeyboardEvent): boolean {
  const path = event.composedPath()[0] as HTMLElement | undefined;
  return !!path?.closest?.("input, textarea, select, [contenteditable='true'], .cm-editor");
}

const SECOND_MS = 1_500;
let before = "";
let timer: ReturnType<typeof setTimeout> | undefined;

/** Runs the key that fits, of one or two strokes. */
export function press(event: KeyboardEvent, list: Key[]): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || document.querySelector("dialog[open]")) return false;
  const strokes = before ? `${before} ${event.key}` : event.key;
  const found = list.find((key) => key.keys === strokes);
  clearTimeout(timer);
  before = "";
  if (found) {
    event.preventDefault();
    found.run();
    return true;
  }
  if (list.some((key) => key.keys.startsWith(`${event.key} `))) {
    before = event.key;
    timer = setTimeout(() => (before = ""), SECOND_MS);
  }
  return false;
}
