/** The queue in which events wait for the service. Pure: the clock is passed in. */

import { InvalidRequest, Problem, type ClientError } from "./errors.js";
import type { StoredEvent } from "./types.js";

/** Events of one request; the service takes no more. */
export const EVENTS_MAX = 1000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 30_000;
// A later try may find another state: a key that was set, a route that is there. So events wait.
const OF_THE_SETUP = [401, 403, 404, 405];

/** Called with events that will not be sent any more, and why. */
export type OnDrop = (events: readonly StoredEvent[], why: string) => void;

/** Bounds of a queue. */
export interface Bounds {
  /** Events that it holds at most, those on their way included. */
  most: number;
  /** Events of one request. */
  batch: number;
  /** The longest that an event waits for others, in milliseconds. */
  intervalMs: number;
}

/** A bounded queue of events. */
export class Outbox {
  #waiting: StoredEvent[] = [];
  /** The batch that a call carries. */
  #sent: StoredEvent[] = [];
  /** What was handed to the browser when the page was hidden: nobody says whether it arrived. */
  #entrusted: StoredEvent[] = [];
  #oldestAt = 0;
  #notBefore = 0;
  #failures = 0;
  #largest: number;
  /** What a call carries of users who were erased since: it is not sent again. */
  #forgotten = new Set<StoredEvent>();

  constructor(
    private readonly bounds: Bounds,
    private readonly onDrop: OnDrop,
    private readonly clock: () => number,
  ) {
    const { most, batch, intervalMs } = bounds;
    if (!(batch >= 1 && batch <= EVENTS_MAX && most >= batch && intervalMs >= 0)) {
      throw new RangeError(`a batch holds 1 to ${EVENTS_MAX} events, a queue at least one batch, and time goes forward`);
    }
    this.#largest = batch;
  }

  /** Events that are here, wherever they are. */
  get size(): number {
    return this.#waiting.length + this.#sent.length + this.#entrusted.length;
  }

  /** Events that nobody has been given yet, or that a call carries. */
  get unsent(): number {
    return this.#waiting.length + this.#sent.length;
  }

  /** Adds an event; false if there is no room, after `onDrop` was told. */
  add(event: StoredEvent): boolean {
    if (this.size >= this.bounds.most) {
      this.onDrop([event], `the queue holds ${this.bounds.most} events already`);
      return false;
    }
    if (this.#waiting.length === 0) this.#oldestAt = this.clock();
    this.#waiting.push(event);
    return true;
  }

  /** Returns the milliseconds until a batch must be sent; nothing if none waits, or one is on its way. */
  dueIn(now = false): number | undefined {
    if (this.#waiting.length === 0 || this.#sent.length > 0) return undefined;
    const full = this.#waiting.length >= this.bounds.batch;
    const ready = now || full ? 0 : this.#oldestAt + this.bounds.intervalMs - this.clock();
    return Math.max(0, ready, this.#notBefore - this.clock());
  }

  /** Returns the next batch; it is on its way until `accepted` or `refused` is called. */
  take(): readonly StoredEvent[] {
    this.#sent = this.#waiting.splice(0, Math.min(this.bounds.batch, this.#largest));
    return this.#sent;
  }

  /** The batch is stored. */
  accepted(): void {
    this.#sent = [];
    this.#forgotten.clear();
    this.#failures = 0;
    this.#largest = this.bounds.batch;
    this.#oldestAt = this.clock();
  }

  /** The batch is not stored, as far as this side knows. With an invalid event, it is sent again without it. */
  refused(error: ClientError): void {
    const batch = this.#sent;
    this.#sent = [];
    this.#failures += 1;
    this.#oldestAt = -Infinity;
    this.#largest = this.bounds.batch;
    let pause = 0;
    let bad = new Set<number>();
    if (!(error instanceof InvalidRequest)) {
      pause = pauseMs(error, this.#failures);
    } else if (error.status === 413 && batch.length > 1) {
      this.#largest = Math.floor(batch.length / 2);
    } else {
      bad = new Set(error.faults.map((fault) => fault.index ?? -1).filter((n) => n >= 0 && n < batch.length));
      if (bad.size === 0) bad = new Set(batch.keys());
    }
    const lost = (event: StoredEvent, n: number): boolean => bad.has(n) || this.#forgotten.has(event);
    this.#waiting.unshift(...batch.filter((event, n) => !lost(event, n)));
    this.#notBefore = this.clock() + pause;
    const drop = batch.filter(lost);
    if (drop.length > 0) this.onDrop(drop, error.message);
    this.#forgotten.clear();
  }

  /** Returns everything that is not known to be stored, oldest first. */
  unconfirmed(): StoredEvent[] {
    return [...this.#entrusted, ...this.#sent, ...this.#waiting];
  }

  /** Returns what the browser was not given yet, oldest first. */
  notEntrusted(): StoredEvent[] {
    return [...this.#sent, ...this.#waiting];
  }

  /** The browser was given the first of `notEntrusted`. What a call carries is counted once, by its call. */
  entrust(count: number): void {
    this.#entrusted.push(...this.#waiting.splice(0, Math.max(0, count - this.#sent.length)));
  }

  /** The page is shown again: what the browser was given is sent once more. Its ids make sure that it counts once. */
  distrust(): void {
    this.#waiting.unshift(...this.#entrusted);
    this.#entrusted = [];
  }

  /** Gives what waits of a session to the user who logged in. */
  belongs(sessionId: string, userId: string): void {
    const owned = (event: StoredEvent): StoredEvent =>
      event.user_id == null && event.session_id === sessionId ? { ...event, user_id: userId } : event;
    this.#waiting = this.#waiting.map(owned);
    this.#entrusted = this.#entrusted.map(owned);
  }

  /** Drops what waits of a user who was erased; true if a call carries something of that user at this moment. */
  forget(userId: string): boolean {
    const theirs = (event: StoredEvent): boolean => event.user_id === userId;
    const gone = [...this.#entrusted, ...this.#waiting].filter(theirs);
    this.#entrusted = this.#entrusted.filter((event) => !theirs(event));
    this.#waiting = this.#waiting.filter((event) => !theirs(event));
    const carried = this.#sent.filter(theirs);
    carried.forEach((event) => this.#forgotten.add(event));
    if (gone.length > 0) this.onDrop(gone, "the user was erased");
    return carried.length > 0;
  }

  /** Drops everything, after `onDrop` was told; returns how many events that were. */
  abandon(why: string): number {
    const gone = this.unconfirmed();
    this.#entrusted = [];
    this.#sent = [];
    this.#waiting = [];
    if (gone.length > 0) this.onDrop(gone, why);
    return gone.length;
  }
}

function pauseMs(error: ClientError, failures: number): number {
  if (!(error instanceof Problem)) return backOff(failures);
  return error.retryAfterMs ?? (OF_THE_SETUP.includes(error.status) ? LONGEST_PAUSE_MS : backOff(failures));
}

function backOff(failures: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 10));
}
