// Which page is shown: the browser's address below /portal, without a hash.

export const BASE = "/portal";

/** Parts stay encoded: they are decoded one by one, by {@link match}. */
function current(): { path: string; query: URLSearchParams } {
  const path = location.pathname.replace(/^\/portal\/?/, "/");
  return { path: path.length > 1 ? path.replace(/\/+$/, "") : path, query: new URLSearchParams(location.search) };
}

export const route = $state(current());

function take(): void {
  Object.assign(route, current());
}

let arrived: () => void = () => {};
/** Called after each change of page, not of query. */
export function onArrival(call: () => void): void {
  arrived = call;
}

/** The address of a page. Parts are encoded by whoever makes a path of them: see {@link at}. */
export function href(path: string): string {
  return BASE + path;
}

/** A path of parts, each encoded. */
export function at(...parts: (string | number)[]): string {
  return parts.map((part) => `/${encodeURIComponent(String(part))}`).join("");
}

export function go(path: string, replace = false): void {
  const before = route.path;
  if (replace) history.replaceState(null, "", href(path));
  else history.pushState(null, "", href(path));
  take();
  if (route.path !== before) {
    scrollTo(0, 0);
    arrived();
  }
}

/** Sets parts of the query and leaves the others; an empty value takes its part out. */
export function setQuery(changes: Record<string, string | null | undefined>): void {
  const query = new URLSearchParams(route.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  go(route.path + (text ? `?${text}` : ""), true);
}

/** Links within the portal are followed here; all others, and those that open a tab, by the browser. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.("a");
  if (!link || link.target || link.origin !== location.origin || !link.pathname.startsWith(`${BASE}/`)) return;
  if (link.hash && link.pathname === location.pathname) return;
  event.preventDefault();
  go(link.pathname.slice(BASE.length) + link.search);
}

addEventListener("popstate", () => {
  take();
  arrived();
});

/** The values of a pattern like `/jobs/:id`, if the path has its form. */
export function match(pattern: string, path: string): string[] | undefined {
  const wanted = pattern.split("/");
  const parts = path.split("/");
  if (wanted.length !== parts.length) return undefined;
  const values: string[] = [];
  for (const [index, part] of wanted.entries()) {
    const given = parts[index] ?? "";
    if (part.startsWith(":")) {
      if (given === "") return undefined;
      values.push(decode(given));
    } else if (part !== given) return undefined;
  }
  return values;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
