// The HTTP API, typed by its OpenAPI document. The session is in a cookie that no script sees; the header shows the server that a page
// of the portal asks.

import { words } from "../messages";
import type { components, paths } from "./openapi";

export type Schemas = components["schemas"];
export type Ucr = Schemas["Ucr"];
export type Session = Schemas["PortalSessionView"];
export interface List<T> {
  items: T[];
  next?: string | null;
}

const API = "/portal/api";
const SESSION = "/portal/session";
const HEADERS = { "X-Piecework-Portal": "1" };
/** Longer than any answer of the server takes, except a run's. */
const WITHIN_MS = 30_000;

/** Why something was refused or failed, in the server's words. */
export class Refused extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly fields: { path: string; message: string }[];
  readonly jobId: string | undefined;
  readonly details: unknown;
  constructor(status: number, refusal: Partial<Schemas["Refusal"]>) {
    super(refusal.message || words.noReason(status));
    this.status = status;
    this.code = refusal.code ?? `http.${status}`;
    this.hint = refusal.hint ?? undefined;
    this.field = refusal.field ?? undefined;
    this.fields = refusal.fields ?? [];
    this.jobId = refusal.job_id ?? undefined;
    this.details = refusal.details;
  }
  get isGone(): boolean {
    return this.status === 404 || this.status === 410;
  }
  get isForbidden(): boolean {
    return this.status === 403;
  }
}

type Method = "get" | "post" | "put" | "delete";
type Body<O> = O extends { requestBody?: { content: { "application/json": infer B } } } ? B : never;
type Ok<O> = O extends { responses: infer R }
  ? R extends { 200: { content: { "application/json": infer T } } }
    ? T
    : R extends { 201: { content: { "application/json": infer T } } }
      ? T
      : unknown
  : never;
type Paths<M extends Method> = { [P in keyof paths]: paths[P] extends Record<M, object> ? P : never }[keyof paths];
type Operation<P extends keyof paths, M extends Method> = paths[P] extends Record<M, infer O> ? O : never;

export interface Request {
  /** In place of the `{...}` of the path, in their order. */
  at?: (string | number)[];
  query?: Record<string, string | number | boolean | undefined | null>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  withinMs?: number;
}

export function pathOf(path: string, request: Request = {}): string {
  const values = [...(request.at ?? [])];
  let filled = path.replace(/\{[^}]+\}/g, () => encodeURIComponent(String(values.shift() ?? "")));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined && value !== null && value !== "") query.set(name, String(value));
  }
  if (query.size > 0) filled += `?${query}`;
  return filled;
}

/** Told of every answer that says that nobody is signed in. */
let onSignedOut: () => void = () => {};
export function whenSignedOut(call: () => void): void {
  onSignedOut = call;
}

async function send(method: string, url: string, request: Request, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { ...HEADERS, ...request.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(request.withinMs ?? WITHIN_MS);
  const signal = request.signal ? AbortSignal.any([request.signal, limit]) : limit;
  let response: Response;
  try {
    response = await fetch(url, {
      method,
      headers,
      signal,
      credentials: "same-origin",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    if (request.signal?.aborted) throw error;
    const isSlow = limit.aborted;
    throw new Refused(0, {
      code: isSlow ? "portal.slow" : "portal.unreachable",
      message: isSlow ? words.slow : words.unreachable,
      hint: words.unreachableHint,
    });
  }
  if (!response.ok) {
    const refused = new Refused(response.status, await refusalOf(response));
    if (response.status === 401 && url !== SESSION) onSignedOut();
    throw refused;
  }
  return response;
}

async function refusalOf(response: Response): Promise<Partial<Schemas["Refusal"]>> {
  try {
    const body: unknown = await response.json();
    const error = (body as { error?: Partial<Schemas["Refusal"]> } | null)?.error;
    return error && typeof error === "object" ? error : {};
  } catch {
    return {};
  }
}

async function parsed(response: Response): Promise<unknown> {
  if (response.status === 204) return undefined;
  const text = await response.text();
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused(response.status, { code: "portal.not_json", message: words.notJson });
  }
}

async function call(method: Method, path: string, request: Request, body?: unknown): Promise<unknown> {
  return parsed(await send(method.toUpperCase(), API + pathOf(path, request), request, body));
}

export function get<P extends Paths<"get">>(path: P, request: Request = {}): Promise<Ok<Operation<P, "get">>> {
  return call("get", path, request) as Promise<Ok<Operation<P, "get">>>;
}
/** With the `ETag`, for a change that must not undo somebody else's. */
export async function getTagged<P extends Paths<"get">>(
  path: P,
  request: Request = {},
): Promise<{ value: Ok<Operation<P, "get">>; etag: string | undefined }> {
  const response = await send("GET", API + pathOf(path, request), request);
  const etag = response.headers.get("ETag") ?? undefined;
  return { value: (await parsed(response)) as Ok<Operation<P, "get">>, etag };
}
export function post<P extends Paths<"post">>(
  path: P,
  body?: Body<Operation<P, "post">>,
  request: Request = {},
): Promise<Ok<Operation<P, "post">>> {
  return call("post", path, request, body) as Promise<Ok<Operation<P, "post">>>;
}
export function put<P extends Paths<"put">>(
  path: P,
  body?: Body<Operation<P, "put">>,
  request: Request = {},
): Promise<Ok<Operation<P, "put">>> {
  return call("put", path, request, body) as Promise<Ok<Operation<P, "put">>>;
}
export function remove<P extends Paths<"delete">>(path: P, request: Request = {}): Promise<unknown> {
  return call("delete", path, request);
}

/** As it was sent: numbers of more digits than JavaScript keeps are in it. */
export async function getText(path: Paths<"get">, request: Request = {}): Promise<string> {
  return (await send("GET", API + pathOf(path, request), request)).text();
}

/** A stream that the caller reads and cancels. */
export async function stream(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const response = await fetch(API + path, { headers: { ...HEADERS, Accept: "text/event-stream" }, signal });
  if (response.status === 401) onSignedOut();
  if (!response.ok || !response.body) throw new Refused(response.status, await refusalOf(response));
  return response.body;
}

export const session = {
  show: async () => (await parsed(await send("GET", SESSION, {}))) as Session,
  open: async (body: Schemas["OpenPortalSession"]) => (await parsed(await send("POST", SESSION, {}, body))) as Session,
  close: async () => void (await send("DELETE", SESSION, {})),
};

/** A new key for a request that must have its effect once. */
export function idempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
