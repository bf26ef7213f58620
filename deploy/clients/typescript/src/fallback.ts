/** What is shown when the service cannot be asked: the last good list of the same question, or a configured one. */

import { BadAnswer, ClientError, TimedOut, TooManyRequests, Unavailable, Unreachable } from "./errors.js";
import type { LocalReason, Question, RankedItem, Recommendation } from "./types.js";

/** Items, best first: their ids, or with what a page shows of them. Or a function from the question to them. */
export type Configured = readonly ConfiguredItem[] | ((question: Question) => readonly ConfiguredItem[]);

/** An item of a configured list. */
export type ConfiguredItem = string | ({ item_id: string } & Partial<RankedItem>);

// They change from one question to the next without changing which list is meant.
const VOLATILE = ["k", "seed", "events", "exclude", "budget_ms", "explain", "features"];
// A configured list knows nothing of them, so it must not answer such a question.
const NARROWING = ["filter", "candidates", "cursor"];
const REASONS: [new (...args: never[]) => ClientError, LocalReason][] = [
  [TooManyRequests, "too_many_requests"],
  [Unavailable, "unavailable"],
  [TimedOut, "timed_out"],
  [Unreachable, "unreachable"],
  [BadAnswer, "bad_answer"],
];

/** Keeps the last good list of each question, the oldest questions forgotten first. */
export class Fallback {
  #last = new Map<string, Recommendation>();

  constructor(
    private readonly configured: Configured | undefined,
    private readonly kept: number,
  ) {}

  /** Remembers an answer as the last good one of its question. */
  keep(question: Question, answer: Recommendation): void {
    if (answer.items.length === 0 || question["cursor"] != null) return;
    const name = nameOf(question);
    this.#last.delete(name);
    this.#last.set(name, answer);
    for (const oldest of this.#last.keys()) {
      if (this.#last.size <= this.kept) break;
      this.#last.delete(oldest);
    }
  }

  /** Remembers an answer, or returns a local list for an error; the error itself if there is none. */
  settled(question: Question, found: Recommendation | ClientError): Recommendation | ClientError {
    try {
      if (found instanceof ClientError) return this.instead(question, found);
      this.keep(question, found);
      return found;
    } catch (error) {
      if (error instanceof ClientError) return error;
      throw error;
    }
  }

  /**
   * Returns a local list for a question that the service did not answer. Excluded items are left out, and so are those
   * of the question's own events. Throws the error itself if it is the caller's, or if there is no list.
   */
  instead(question: Question, error: ClientError): Recommendation {
    const reason = REASONS.find(([Kind]) => error instanceof Kind)?.[1];
    if (reason === undefined) throw error;
    const last = this.#last.get(nameOf(question));
    const basket = Array.isArray(question["items"]) ? (question["items"] as string[]) : [];
    const out = new Set([...basket, ...(question.exclude ?? []), ...(question.events ?? []).map((event) => event.item_id)]);
    const items = (last?.items ?? this.#ofConfiguration(question))
      .filter((item) => !out.has(item.item_id))
      .slice(0, question.k ?? question.candidates?.length ?? 10)
      .map((item, n) => ({ ...item, rank: n + 1 }));
    if (items.length === 0) throw error;
    return {
      warnings: [],
      segment: null,
      strategy: null,
      model_version: null,
      arms: {},
      request_id: null,
      user_id: question.user_id ?? null,
      session_id: question.user_id != null ? null : (question.session_id ?? null),
      ...last,
      items,
      list_id: null,
      source: "local",
      rung: null,
      degraded: true,
      reason,
      cursor: null,
      rules: [],
      local: true,
      error,
    };
  }

  /** Forgets every list. */
  clear(): void {
    this.#last.clear();
  }

  /** What is shown without a last list. Items that the question names stand in its own order. */
  #ofConfiguration(question: Question): RankedItem[] {
    let items: readonly ConfiguredItem[] = [];
    if (typeof this.configured === "function") items = this.configured(question);
    else if (question.candidates != null && question.filter == null) items = question.candidates;
    else if (!NARROWING.some((member) => question[member] != null)) items = this.configured ?? [];
    const seen = new Map(items.map((item) => (typeof item === "string" ? [item, { item_id: item }] : [item.item_id, item])));
    return [...seen.values()].map((item) => ({ rank: 0, score: null, title: null, ...item }));
  }
}

function nameOf(question: Question): string {
  // Without a user or session, events are all that tells visitors apart.
  const named = question.user_id != null || question.session_id != null;
  const lasts = (member: string): boolean => !VOLATILE.includes(member) || (member === "events" && !named);
  const lasting = Object.entries(question).filter(([member, value]) => value != null && lasts(member));
  return JSON.stringify(lasting.sort(([a], [b]) => (a < b ? -1 : 1)));
}
