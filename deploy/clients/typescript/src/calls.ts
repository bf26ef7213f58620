/** One call of the service: its deadline, its attempts, its errors. */

import { BadAnswer, ClientError, Problem, problem, TimedOut, TooManyRequests, Unavailable, Unreachable } from "./errors.js";

const FIRST_PAUSE_MS = 50;

/** What a call is. */
export interface Call<T> {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Path and query below the base address. */
  path: string;
  body?: Record<string, unknown>;
  /** A body of JSON lines, in place of `body`. */
  lines?: string;
  /** Members that an answer has. */
  has: (keyof T & string)[];
}

/** How calls are made. */
export interface Wire {
  base: string;
  headers: Record<string, string>;
  timeoutMs: number;
  retries: number;
  sendStart: boolean;
  fetch: typeof fetch;
  random: () => number;
}

/**
 * Makes a call, with further attempts while there is time.
 *
 * Every call of the service can be repeated safely: events have ids, and all other writes replace a value. Retry-After
 * is honoured; where it is longer than the time left, waiting is of no use, so the error is thrown at once.
 */
export async function make<T>(wire: Wire, call: Call<T>, signal?: AbortSignal): Promise<T> {
  const until = performance.now() + wire.timeoutMs;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await once(wire, call, until - performance.now(), signal);
    } catch (error) {
      if (signal?.aborted || !(error instanceof ClientError)) throw error;
      const pause = pauseMs(error, attempt, wire);
      if (pause === undefined || performance.now() + pause >= until) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
      signal?.throwIfAborted();
    }
  }
}

/** Returns the milliseconds before the next attempt; nothing if there is none. Pauses double, with jitter. */
export function pauseMs(error: ClientError, attempt: number, wire: Pick<Wire, "retries" | "random">): number | undefined {
  const passes =
    error instanceof Unreachable ||
    error instanceof TooManyRequests ||
    error instanceof Unavailable ||
    error instanceof BadAnswer;
  if (!passes || attempt >= wire.retries) return undefined;
  const asked = error instanceof Problem ? error.retryAfterMs : undefined;
  return asked ?? FIRST_PAUSE_MS * 2 ** attempt * (0.5 + 0.5 * wire.random());
}

/** Returns the body of a call. It never asks the service for more time than the call has left. */
export function content(body: Record<string, unknown>, leftMs: number): string {
  const budget = body["budget_ms"];
  return JSON.stringify(typeof budget === "number" ? { ...body, budget_ms: Math.min(budget, leftMs) } : body);
}

async function once<T>(wire: Wire, call: Call<T>, leftMs: number, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  if (leftMs <= 0) throw new TimedOut(`${call.method} ${call.path}: the time of the call is over`);
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), leftMs);
  const aborted = (): void => ending.abort(signal?.reason);
  signal?.addEventListener("abort", aborted);
  try {
    const request: RequestInit = { method: call.method, headers: { ...wire.headers }, signal: ending.signal };
    if (call.body !== undefined || call.lines !== undefined) {
      request.body = call.lines ?? content(call.body ?? {}, leftMs);
      Object.assign(request.headers!, { "Content-Type": "application/json" });
    }
    if (wire.sendStart) Object.assign(request.headers!, { "X-Request-Start": String(Date.now()) });
    const response = await wire.fetch(wire.base + call.path, request);
    return await read(call, response);
  } catch (error) {
    if (error instanceof ClientError || signal?.aborted) throw error;
    if (ending.signal.aborted) throw new TimedOut(`${call.method} ${call.path}: no answer in time`, { cause: error });
    throw new Unreachable(`${call.method} ${call.path}: ${String(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
  }
}

async function read<T>(call: Call<T>, response: Response): Promise<T> {
  const text = await response.text();
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    document = undefined;
  }
  if (!response.ok) throw problem(response.status, document, response.headers.get("Retry-After"));
  if (typeof document !== "object" || document === null || !call.has.every((member) => member in document)) {
    throw new BadAnswer(`${call.method} ${call.path}: this is no answer of the service`);
  }
  return document as T;
}
