// The server's counters, as Prometheus reads them.

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function samples(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const parts = line.startsWith("#") ? null : LINE.exec(line);
    if (!parts?.[1]) return [];
    const labels = Object.fromEntries([...(parts[2] ?? "").matchAll(LABEL)].map((label) => [label[1] ?? "", label[2] ?? ""]));
    return [{ name: parts[1], labels, value: Number(parts[3]) }];
  });
}

export interface Route {
  name: string;
  requests: number;
  refused: number;
  failed: number;
  /** Seconds, at most: the bounds of the histogram's parts. */
  p50: number | undefined;
  p95: number | undefined;
}

/** Requests by route, the busiest first. */
export function routes(of: Sample[]): Route[] {
  const named = (name: string, route: string) => of.filter((one) => one.name === name && one.labels["route"] === route);
  const names = new Set(of.filter((one) => one.name === "piecework_http_requests_total").map((one) => one.labels["route"] ?? ""));
  const all = [...names].map((name): Route => {
    const counted = named("piecework_http_requests_total", name);
    const sum = (begins: string) => counted.filter((one) => one.labels["status"]?.startsWith(begins)).reduce((total, one) => total + one.value, 0);
    const parts = named("piecework_http_request_duration_seconds_bucket", name).map((one) => ({ most: Number(one.labels["le"] === "+Inf" ? Infinity : one.labels["le"]), count: one.value }));
    const whole = Math.max(0, ...parts.map((part) => part.count));
    const within = (share: number) => (whole === 0 ? undefined : parts.filter((part) => part.count >= share * whole).reduce((least, part) => Math.min(least, part.most), Infinity));
    return { name, requests: sum(""), refused: sum("4"), failed: sum("5"), p50: within(0.5), p95: within(0.95) };
  });
  return all.sort((a, b) => b.requests - a.requests);
}

/** Of a metric without labels. */
export function single(of: Sample[], name: string): number | undefined {
  return of.find((one) => one.name === name)?.value;
}
