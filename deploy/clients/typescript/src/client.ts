/** The client: what a page, or a backend, does with the service. */

import { make, type Call, type Wire } from "./calls.js";
import { BadAnswer, ClientError, problem } from "./errors.js";
import { Fallback, type Configured } from "./fallback.js";
import { Items } from "./items.js";
import type { Bounds, OnDrop } from "./outbox.js";
import { pageHere, type Page } from "./page.js";
import { careful, Sender, type Keeper } from "./sender.js";
import type {
  Erased,
  EventInput,
  EventsAnswer,
  Feature,
  Question,
  Recommendation,
  Related,
  StoredEvent,
  StoredUser,
} from "./types.js";

const SESSION = "gpt4rec.session";

/** Options of a client. */
export interface ClientOptions {
  /** Address of the service, or of a backend that passes calls on; the page's own origin without. */
  baseUrl?: string;
  /** Name of the space, where the service has several. Without, the key says which one is meant, or it is the default space. */
  space?: string;
  /** Path before every route; `/v1` without. */
  prefix?: string;
  /** Key of the caller. A page's key can be read by everybody: give it no right. */
  apiKey?: string;
  /** Headers of every call. */
  headers?: Record<string, string>;
  /** Milliseconds for a call with all its attempts; 1,000 without. */
  timeoutMs?: number;
  /** Time budget of a list in the service, where a question names none; without, the service's default. */
  budgetMs?: number;
  /**
   * Whether `X-Request-Start` says when an attempt began, so that time on the way counts against the budget; false
   * without. For backends whose clock is kept in step, not for browsers.
   */
  sendStart?: boolean;
  /** Attempts after the first, within the same time; 2 without. */
  retries?: number;
  /** What is shown when the service cannot be asked and there is no last good list; without, the error is thrown. */
  fallback?: Configured;
  /** Questions whose last good list is kept; 100 without, 0 switches it off. */
  keptLists?: number;
  /** The user who is logged in. */
  userId?: string;
  /** The anonymous session; without, the one in `storage`, or a new one. */
  sessionId?: string;
  /**
   * Where the session, and events that a page could not send, outlive the page: `localStorage`. Without, nothing is
   * written: pass it once the visitor agreed.
   */
  storage?: Keeper;
  /** Bounds of the queue: 1,000 events, 100 in a request, 1,000 ms without. */
  queue?: Partial<Bounds>;
  /** Milliseconds that `close` spends on sending what waits; 5,000 without. */
  closeTimeoutMs?: number;
  /** Called with events that will not be sent, and why. Without, they are counted on the console. */
  onDrop?: OnDrop;
  /** Takes the place of `fetch`. */
  fetch?: typeof fetch;
  /** The window, whose end is watched; `null` for none. */
  page?: Page | null;
  /** Returns a number in [0, 1). */
  random?: () => number;
}

/** How many items are shown beside an item, and what of them. */
export interface BesideOptions {
  /** Number of items, 1 to 100; 10 without. */
  k?: number;
  /** What is shown of each. Without, the title. */
  fields?: string[];
}

/** A client of the service. */
export class Client {
  /** The catalogue, for backends. */
  readonly items: Items;
  readonly #wire: Wire;
  readonly #options: ClientOptions;
  readonly #keeper: Keeper | undefined;
  readonly #fallback: Fallback;
  readonly #sender: Sender;
  readonly #page: Page | undefined;
  #userId: string | undefined;
  #sessionId: string;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    const given = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#keeper = options.storage && careful(options.storage);
    this.#wire = {
      base: (options.baseUrl ?? "").replace(/\/+$/, "") + below(options.space) + (options.prefix ?? "/v1"),
      headers: {
        Accept: "application/json",
        ...(options.apiKey === undefined ? {} : { Authorization: `Bearer ${options.apiKey}` }),
        ...options.headers,
      },
      timeoutMs: options.timeoutMs ?? 1000,
      retries: options.retries ?? 2,
      sendStart: options.sendStart ?? false,
      fetch: (input, init) => given(input, init), // a window's own wants no `this` but the window
      random: options.random ?? Math.random,
    };
    this.items = new Items(this.#wire);
    this.#fallback = new Fallback(options.fallback, options.keptLists ?? 100);
    this.#page = options.page === null ? undefined : (options.page ?? pageHere());
    this.#userId = options.userId;
    this.#sessionId = options.sessionId ?? this.#keeper?.getItem(SESSION) ?? randomId();
    this.#keeper?.setItem(SESSION, this.#sessionId);
    this.#sender = new Sender({
      bounds: { most: 1000, batch: 100, intervalMs: 1000, ...options.queue },
      onDrop: options.onDrop ?? ((events, why) => console.warn(`${events.length} events are not sent: ${why}`)),
      store: (events) => this.send(events),
      entrust: (body) => this.#entrust(body),
      page: this.#page,
      keeper: this.#keeper,
    });
  }

  /** The user who is logged in; nothing in an anonymous session. */
  get userId(): string | undefined {
    return this.#userId;
  }

  /** The anonymous session. */
  get sessionId(): string {
    return this.#sessionId;
  }

  // Lists

  /**
   * Returns a list. If the service cannot be asked, it is a local one: `local` is true, and `reason` says why. Throws if
   * the question is wrong, or if there is no local list either.
   */
  recommend(question: Question = {}, signal?: AbortSignal): Promise<Recommendation> {
    return this.#asked({ ...this.#budget(), ...this.#subject(question), ...question }, "/recommend", signal);
  }

  /**
   * Returns the next items of a list that was asked for with `page`; nothing where it ends. It is never a local list:
   * throws `Gone` if the list has expired or its user was erased.
   *
   * @param before The page before.
   * @param question `k` (10 without), and `exclude` or `filter` to narrow the list further.
   */
  async nextPage(before: Recommendation, question: Question = {}, signal?: AbortSignal): Promise<Recommendation | undefined> {
    if (before.cursor == null) return undefined;
    const subject = before.user_id != null ? { user_id: before.user_id } : { session_id: before.session_id };
    return this.#list({ ...this.#budget(), ...question, ...subject, cursor: before.cursor }, "/recommend", signal);
  }

  /** Returns up to 100 lists, in order, each as `recommend` does; an error in place of a list that there is not. */
  async recommendBatch(questions: Question[], signal?: AbortSignal): Promise<(Recommendation | ClientError)[]> {
    const requests = questions.map((question) => ({ ...this.#subject(question), ...question }));
    type Entry = { status: number; answer: Recommendation | null; problem: unknown };
    const body = { requests, ...this.#budget() };
    const call: Call<{ answers: Entry[] }> = { method: "POST", path: "/recommend/batch", body, has: ["answers"] };
    let found: (Recommendation | ClientError | undefined)[];
    try {
      const { answers } = await make(this.#wire, call, signal);
      found = answers.map(({ status, answer, problem: why }, n) =>
        answer === null ? problem(status, why, null) : theirs(answer, requests[n]),
      );
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      found = requests.map(() => error);
    }
    return requests.map((asked, n) => this.#fallback.settled(asked, found[n] ?? new BadAnswer("a list is missing")));
  }

  /**
   * Returns what goes with the items of a basket, for the visitor or the user that the question names. Else as
   * `recommend`.
   *
   * @param items What is in the basket, oldest first, at most 100.
   * @param question `k`, `scene`, `context`, `filter`, `exclude`, `exclude_seen`, `features`, `fields`, `explain`, `budget_ms`.
   */
  recommendForBasket(items: string[], question: Question = {}, signal?: AbortSignal): Promise<Recommendation> {
    return this.#asked({ ...this.#budget(), ...this.#subject(question), ...question, items }, "/baskets/recommend", signal);
  }

  /** Returns the items most like an item: what a product page shows. */
  similar(itemId: string, options: BesideOptions = {}, signal?: AbortSignal): Promise<Related> {
    return this.#beside(itemId, "similar", options, signal);
  }

  /** Returns the items that are most often in one basket with an item. */
  together(itemId: string, options: BesideOptions = {}, signal?: AbortSignal): Promise<Related> {
    return this.#beside(itemId, "together", options, signal);
  }

  // Events

  /**
   * Queues an event and returns at once. It is sent with others, and again until the service accepts it.
   *
   * @param event What happened. Subject, time and id are added.
   * @param list The list that led to it, to which it is attributed.
   * @returns False if the queue is full; `onDrop` was told.
   */
  track(event: EventInput, list?: Recommendation): boolean {
    return this.#sender.add(this.event(event, list));
  }

  /** Returns an event with its subject, time and id, without sending it: sent twice, it counts once. */
  event(event: EventInput, list?: Recommendation): StoredEvent {
    const attributed = list?.list_id != null ? { list_id: list.list_id } : {};
    return { timestamp: Date.now(), event_id: randomId(), ...this.#subject(event), ...attributed, ...event };
  }

  /** Sends what waits; returns how many events are left after that time. */
  flush(withinMs = 5000): Promise<number> {
    return this.#sender.flush(withinMs);
  }

  /** Stores events now: they are written when this resolves. At most 1,000. */
  send(events: readonly StoredEvent[], signal?: AbortSignal): Promise<EventsAnswer> {
    return make(this.#wire, { method: "POST", path: "/events", body: { events }, has: ["accepted"] }, signal);
  }

  // Who it is

  /** The visitor logs in: what the session did is the user's from now on. Returns how many events were new to the user. */
  async login(userId: string): Promise<number> {
    const merged = await this.merge(this.#sessionId, userId);
    this.#userId = userId;
    return merged;
  }

  /** The user logs out, and a new anonymous session begins. */
  logout(): void {
    this.#userId = undefined;
    this.#sessionId = randomId();
    this.#keeper?.setItem(SESSION, this.#sessionId);
    this.#fallback.clear();
  }

  /**
   * Gives the history of an anonymous session to a user. What waits of the session is sent before; what cannot be sent
   * now will be sent as the user's.
   */
  async merge(sessionId: string, userId: string): Promise<number> {
    await this.#sender.flush(this.#wire.timeoutMs);
    this.#sender.belongs(sessionId, userId);
    const body = { session_id: sessionId, user_id: userId };
    const call: Call<{ merged: number }> = { method: "POST", path: "/sessions/merge", body, has: ["merged"] };
    const { merged } = await make(this.#wire, call);
    this.#fallback.clear();
    return merged;
  }

  /** Forgets the visitor in this browser: session, events that wait, last lists. `erase` is what the service does. */
  forget(): void {
    this.#sender.abandon("the visitor was forgotten");
    this.#keeper?.removeItem(SESSION);
    this.#userId = undefined;
    this.#sessionId = randomId();
    this.#fallback.clear();
  }

  // For backends: their key needs the right `users`

  /** Returns everything that is stored about a user. */
  user(userId: string, signal?: AbortSignal): Promise<StoredUser> {
    return make(this.#wire, { method: "GET", path: `/users/${segment(userId)}`, has: ["history"] }, signal);
  }

  /** Deletes everything about a user, events that wait and last lists too. */
  async erase(userId: string, signal?: AbortSignal): Promise<Erased> {
    await this.#sender.forget(userId, this.#wire.timeoutMs);
    this.#fallback.clear();
    return make(this.#wire, { method: "DELETE", path: `/users/${segment(userId)}`, has: ["deleted"] }, signal);
  }

  /** Stores the features of a user in place of those before. */
  putUserFeatures(userId: string, features: Record<string, Feature>): Promise<{ features: Record<string, Feature> }> {
    const path = `/users/${segment(userId)}/features`;
    return make(this.#wire, { method: "PUT", path, body: { features }, has: ["features"] });
  }

  // The end

  /** Sends what waits, then stops watching the page; returns how many events had to be dropped. */
  close(): Promise<number> {
    return this.#sender.close(this.#options.closeTimeoutMs ?? 5000);
  }

  async #asked(asked: Question, path: string, signal?: AbortSignal): Promise<Recommendation> {
    try {
      const answer = await this.#list(asked, path, signal);
      this.#fallback.keep(asked, answer);
      return answer;
    } catch (error) {
      if (error instanceof ClientError) return this.#fallback.instead(asked, error);
      throw error;
    }
  }

  #beside(itemId: string, what: string, { k = 10, fields = [] }: BesideOptions, signal?: AbortSignal): Promise<Related> {
    const query = new URLSearchParams({ k: String(k), ...(fields.length > 0 ? { fields: fields.join() } : {}) });
    return make(this.#wire, { method: "GET", path: `/items/${segment(itemId)}/${what}?${query}`, has: ["items"] }, signal);
  }

  async #list(asked: Question, path: string, signal?: AbortSignal): Promise<Recommendation> {
    const call: Call<Recommendation> = { method: "POST", path, body: asked, has: ["items", "source"] };
    return theirs(await make(this.#wire, call, signal), asked);
  }

  #budget(): { budget_ms?: number } {
    return this.#options.budgetMs === undefined ? {} : { budget_ms: this.#options.budgetMs };
  }

  #subject(named: { user_id?: string | null; session_id?: string | null }): { user_id?: string; session_id?: string } {
    if (named.user_id != null || named.session_id != null) return {};
    return this.#userId === undefined ? { session_id: this.#sessionId } : { user_id: this.#userId };
  }

  /** Hands events to the browser: a beacon where no header is needed, else a request that outlives the page. */
  #entrust(body: string): boolean {
    const url = `${this.#wire.base}/events`;
    const { Accept: _, ...headers } = this.#wire.headers;
    const beacon = this.#page?.navigator.sendBeacon;
    // A text needs no preflight, which a page that is gone would not live to see answered.
    if (beacon !== undefined && Object.keys(headers).length === 0) {
      return beacon.call(this.#page?.navigator, url, new Blob([body], { type: "text/plain" }));
    }
    const request = { method: "POST", body, keepalive: true, headers: { ...headers, "Content-Type": "application/json" } };
    this.#wire.fetch(url, request).catch(() => undefined);
    return true;
  }
}

/** Returns an answer with what the client knows of it. */
function theirs(answer: Recommendation, asked: Question | undefined): Recommendation {
  const session = answer.user_id == null ? (asked?.session_id ?? null) : null;
  return { ...answer, local: false, session_id: session };
}

/** Returns an id as one segment of a path: a slash in it is no slash of the path. */
/** The path of a space. It is a part of the address: a beacon has no headers, and a service without spaces refuses it. */
function below(space: string | undefined): string {
  return space === undefined ? "" : `/spaces/${encodeURIComponent(space)}`;
}

function segment(id: string): string {
  return encodeURIComponent(id);
}

/** Returns 128 random bits. `crypto.randomUUID` exists on pages that came over TLS alone. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
