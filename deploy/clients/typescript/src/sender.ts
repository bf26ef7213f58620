/** Sends the events of a queue: in batches, again until they are accepted, and before the page is gone. */

import { ClientError } from "./errors.js";
import { EVENTS_MAX, Outbox, type Bounds, type OnDrop } from "./outbox.js";
import { BYTES_MAX, watch, type Page } from "./page.js";
import type { StoredEvent } from "./types.js";

const KEPT = "gpt4rec.events";

/** Where a page keeps texts: `localStorage`, or something like it. */
export interface Keeper {
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
  removeItem(name: string): void;
}

/** Returns a storage that a browser may refuse or that may be full: what cannot be kept is not kept. */
export function careful(storage: Keeper): Keeper {
  const attempt = <T>(what: () => T, otherwise: T): T => {
    try {
      return what();
    } catch {
      return otherwise;
    }
  };
  return {
    getItem: (name) => attempt(() => storage.getItem(name), null),
    setItem: (name, value) => attempt(() => storage.setItem(name, value), undefined),
    removeItem: (name) => attempt(() => storage.removeItem(name), undefined),
  };
}

/** What a sender needs. */
export interface SenderParts {
  bounds: Bounds;
  onDrop: OnDrop;
  /** Sends a batch; throws a ClientError if the service did not accept it. */
  store: (events: readonly StoredEvent[]) => Promise<unknown>;
  /** Hands a body to the browser, which sends it even when the page is gone; false if it does not take it. */
  entrust: (body: string) => boolean;
  page: Page | undefined;
  keeper: Keeper | undefined;
}

/** Sends what waits. */
export class Sender {
  readonly #outbox: Outbox;
  readonly #unwatch: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hurrying = 0;
  #closed = false;
  #waiters = new Set<() => void>();

  constructor(private readonly parts: SenderParts) {
    this.#outbox = new Outbox(parts.bounds, parts.onDrop, () => performance.now());
    this.#unwatch = parts.page ? watch(parts.page, () => this.#leave(), () => this.#back()) : () => undefined;
    this.#takeKept();
  }

  /** Events that are not known to be stored. */
  get size(): number {
    return this.#outbox.size;
  }

  /** Adds an event; false if there is no room. */
  add(event: StoredEvent): boolean {
    if (this.#closed) throw new Error("the client is closed");
    const added = this.#outbox.add(event);
    this.#schedule();
    return added;
  }

  /** Sends what waits without waiting for more; returns how many events are left after that time. */
  async flush(withinMs: number): Promise<number> {
    const until = performance.now() + withinMs;
    this.#hurrying += 1;
    this.#schedule();
    while (this.#outbox.unsent > 0 && performance.now() < until) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, until - performance.now());
        this.#waiters.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    this.#hurrying -= 1;
    return this.#outbox.size;
  }

  /** Gives what waits of a session to the user who logged in. */
  belongs(sessionId: string, userId: string): void {
    this.#outbox.belongs(sessionId, userId);
  }

  /** Drops what waits of a user who was erased. What a call carries has arrived when this returns, or is dropped too. */
  async forget(userId: string, withinMs: number): Promise<void> {
    if (this.#outbox.forget(userId)) await this.flush(withinMs);
  }

  /** Drops everything, after `onDrop` was told. */
  abandon(why: string): number {
    this.parts.keeper?.removeItem(KEPT);
    return this.#outbox.abandon(why);
  }

  /** Sends what waits, then ends; returns how many events had to be dropped. */
  async close(withinMs: number): Promise<number> {
    this.#outbox.distrust();
    await this.flush(withinMs);
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#unwatch();
    return this.abandon("the client was closed before the service accepted them");
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const due = this.#closed ? undefined : this.#outbox.dueIn(this.#hurrying > 0);
    if (due !== undefined) this.#timer = setTimeout(() => void this.#send(), due);
  }

  async #send(): Promise<void> {
    try {
      await this.parts.store(this.#outbox.take());
      this.#outbox.accepted();
    } catch (error) {
      this.#outbox.refused(error instanceof ClientError ? error : new ClientError(String(error)));
    }
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    waiters.forEach((wake) => wake());
    this.#schedule();
  }

  /** The page may be gone after this: the browser gets what it can carry, and the rest is kept for the next page. */
  #leave(): void {
    const events = this.#outbox.notEntrusted();
    const count = carried(events);
    if (count > 0 && this.parts.entrust(JSON.stringify({ events: events.slice(0, count) }))) this.#outbox.entrust(count);
    if (this.#outbox.size > 0) this.parts.keeper?.setItem(KEPT, JSON.stringify(this.#outbox.unconfirmed()));
    this.#schedule();
  }

  /** The page is back: whether what the browser was given arrived is not known, so it is sent again. */
  #back(): void {
    this.parts.keeper?.removeItem(KEPT);
    this.#outbox.distrust();
    this.#schedule();
  }

  /** Takes over what the page before kept. Their ids make sure that what had arrived counts once. */
  #takeKept(): void {
    const kept = this.parts.keeper?.getItem(KEPT);
    if (kept == null) return;
    this.parts.keeper?.removeItem(KEPT);
    try {
      (JSON.parse(kept) as StoredEvent[]).forEach((event) => this.#outbox.add(event));
    } catch {
      this.parts.onDrop([], "what an earlier page kept of its events cannot be read");
    }
    this.#schedule();
  }
}

/** Returns how many events, from the first on, fit into what a browser carries after a page is gone. */
function carried(events: readonly StoredEvent[]): number {
  let bytes = '{"events":[]}'.length;
  const sizes = events.slice(0, EVENTS_MAX).map((event) => new TextEncoder().encode(JSON.stringify(event)).length + 1);
  const beyond = sizes.findIndex((size) => (bytes += size) > BYTES_MAX);
  return beyond < 0 ? sizes.length : beyond;
}
