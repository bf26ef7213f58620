/**
 * What a call can throw, in one tree.
 *
 *     ClientError
 *     ├── Unreachable          no connection, or it broke: the service may have done what was asked
 *     ├── TimedOut             the call's time is over: the service may have done what was asked
 *     ├── BadAnswer            something answered that is not the service, such as a proxy's page
 *     └── Problem              the service answered with a problem document (RFC 9457)
 *         ├── InvalidRequest   400, 413, 414, 415, 422, 431: the request itself is wrong; `faults` says where
 *         ├── Unauthorized     401: the key is missing or unknown
 *         ├── Forbidden        403: the key lacks the right
 *         ├── NotFound         404
 *         ├── Conflict         409, 412
 *         ├── Gone             410: the cursor has expired, or its user was erased
 *         ├── TooManyRequests  429: the rate of the key is used up; `retryAfterMs` says for how long
 *         └── Unavailable      408, 5xx: not possible now
 *
 * A call that its caller aborts throws the reason of the signal, which is none of these.
 */
export class ClientError extends Error {
  // Written out, because minifiers rename classes.
  override readonly name: string = "ClientError";
}

/** There is no connection, or it broke before the answer was complete. In a browser, also: CORS forbids the call. */
export class Unreachable extends ClientError {
  override readonly name: string = "Unreachable";
}

/** The time of the call is over. */
export class TimedOut extends ClientError {
  override readonly name: string = "TimedOut";
}

/** What answered is not the service. */
export class BadAnswer extends ClientError {
  override readonly name: string = "BadAnswer";
}

/** One fault of a request. */
export interface Fault {
  /** Path of keys and indices to the faulty value. */
  loc: (string | number)[];
  message: string;
  type: string;
  /** Index of the faulty event in its batch. */
  index?: number | null;
}

interface Document {
  type?: unknown;
  title?: unknown;
  detail?: unknown;
  request_id?: unknown;
  errors?: unknown;
}

/** The service answered with a problem document. */
export class Problem extends ClientError {
  override readonly name: string = "Problem";
  /** Stable code, such as `unknown_segment`; of an answer that is no problem document, `http_STATUS`. */
  readonly reason: string;
  /** What happened, in a few words. */
  readonly title: string;
  /** What happened in this case. */
  readonly detail: string;
  /** Name of the request in the logs of the service. */
  readonly requestId: string | undefined;
  /** The faults of the request, if the service lists them. */
  readonly faults: readonly Fault[];
  /** Milliseconds to wait before the next try, if the service says so. */
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly status: number,
    document: unknown,
    retryAfter: string | null,
  ) {
    const found: Document = typeof document === "object" && document !== null ? document : {};
    const named = typeof found.type === "string" ? found.type : "";
    const reason = named.startsWith(PREFIX) ? named.slice(PREFIX.length) : `http_${status}`;
    const detail =
      typeof found.detail === "string"
        ? found.detail
        : "the answer is no problem document: something in front of the service answered";
    const faults = Array.isArray(found.errors) ? (found.errors as Fault[]) : [];
    const listed = faults.slice(0, 3).map((fault) => `; ${fault.loc.join(".")}: ${fault.message}`);
    super(`${status} ${reason}: ${detail}${listed.join("")}`);
    this.reason = reason;
    this.title = typeof found.title === "string" ? found.title : "";
    this.detail = detail;
    this.requestId = typeof found.request_id === "string" ? found.request_id : undefined;
    this.faults = faults;
    const seconds = retryAfter === null ? NaN : Number(retryAfter);
    this.retryAfterMs = Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : undefined;
  }
}

/** The request itself is wrong: the same request fails again. */
export class InvalidRequest extends Problem {
  override readonly name: string = "InvalidRequest";
}

/** The key is missing or unknown. */
export class Unauthorized extends Problem {
  override readonly name: string = "Unauthorized";
}

/** The key lacks the right. */
export class Forbidden extends Problem {
  override readonly name: string = "Forbidden";
}

/** What was asked for does not exist. */
export class NotFound extends Problem {
  override readonly name: string = "NotFound";
}

/** Not possible in the present state. */
export class Conflict extends Problem {
  override readonly name: string = "Conflict";
}

/** What a cursor continues is there no more: ask for the list again. */
export class Gone extends Problem {
  override readonly name: string = "Gone";
}

/** The rate of the key is used up. */
export class TooManyRequests extends Problem {
  override readonly name: string = "TooManyRequests";
}

/** Not possible now. */
export class Unavailable extends Problem {
  override readonly name: string = "Unavailable";
}

const PREFIX = "urn:gpt4rec:problem:";
const OF_STATUS: ReadonlyMap<number, typeof Problem> = new Map<number, typeof Problem>([
  ...[400, 413, 414, 415, 422, 431].map((status) => [status, InvalidRequest] as const),
  [401, Unauthorized],
  [403, Forbidden],
  [404, NotFound],
  [408, Unavailable],
  [409, Conflict],
  [410, Gone],
  [412, Conflict],
  [429, TooManyRequests],
]);

/** Returns the error of an answer whose status is no success. */
export function problem(status: number, document: unknown, retryAfter: string | null): Problem {
  const Kind = status >= 500 ? Unavailable : (OF_STATUS.get(status) ?? Problem);
  return new Kind(status, document, retryAfter);
}
