/** What is sent and what comes back, under the names that the wire has. The `/docs` page of the service has every bound. */

import type { ClientError } from "./errors.js";

/** Text, number, true or false. */
export type Feature = string | number | boolean;

/** A name that this release knows, or a later one. */
type Known<T extends string> = T | (string & {});

/** What happened. */
export type EventType = Known<"view" | "click" | "cart" | "purchase" | "rating" | "search" | "impression">;

/** An event of the current session, for one answer. */
export interface InlineEvent {
  item_id: string;
  type?: EventType;
  timestamp?: string | number;
}

/** Replaces the decoding of the segment. */
export interface Decoding {
  strategy: "beam" | "top_p" | "temperature" | "greedy";
  beam_width?: number;
  top_p?: number;
  temperature?: number;
}

/** What a list is asked for. The client adds the session, or the user who logged in, unless the question names one. */
export interface Question {
  user_id?: string | null;
  session_id?: string | null;
  /** Events that are not stored, at most 200. */
  events?: InlineEvent[];
  /** Number of items, 1 to 100; 10 without, or all `candidates`. */
  k?: number;
  /** Ranks these items, at most 500, instead of choosing from the catalogue. */
  candidates?: string[] | null;
  /** Whether the list can be continued: `nextPage` does it. */
  page?: boolean;
  /** Where the list is shown. */
  scene?: string | null;
  /** Control codes of the list. */
  context?: Record<string, Feature> | null;
  /** Restricts the list to items with a value of each field. */
  filter?: Record<string, unknown> | null;
  /** Items that must not be listed. */
  exclude?: string[];
  /** What is shown of each item: `title`, `price`, `image`, `url` … Without, the title. */
  fields?: string[] | null;
  /** Whether items of the history stay out; without, the model decides. */
  exclude_seen?: boolean | null;
  segment?: string | null;
  decoding?: Decoding | null;
  /** A number makes sampling repeatable, `fresh` draws anew. Without, the list stays until something happens. */
  seed?: number | "fresh" | null;
  /** Rules of the list, beside those of the policies. */
  rules?: Rule[] | null;
  /** Whether the rules of the policies hold. */
  policy_rules?: boolean;
  /** How the items are to differ from each other. */
  diversity?: Record<string, unknown> | null;
  /** Features of the user, for this answer. */
  features?: Record<string, Feature> | null;
  /** Puts the answer into arms of experiments, for testers. */
  arm?: Record<string, string> | null;
  /** Whether each item says why it is there. */
  explain?: boolean;
  /** Time budget of the answer in the service, in milliseconds. */
  budget_ms?: number | null;
  /** Members that this release does not know. */
  [member: string]: unknown;
}

/** A rule of a list. */
export interface Rule {
  name: string;
  kind: "pin" | "boost" | "bury" | "at_most" | "at_least" | "apart";
  [member: string]: unknown;
}

/** Why an item is in a list. */
export interface Because {
  contributions: Record<string, number>;
  event: {
    item_id: string;
    title: string | null;
    timestamp_ms: number;
    share: number;
    exact: boolean;
    by: string;
  } | null;
}

/** An item of a list, with every field that was asked for. */
export interface RankedItem {
  item_id: string;
  /** Its place, from 1. */
  rank: number;
  /** Comparable within one answer only; null in a local list. */
  score: number | null;
  /** Missing where `fields` of the question does not name it. */
  title?: string | null;
  /** Where `fields` names it; so are those below. */
  brand?: string | null;
  price?: number | null;
  currency?: string | null;
  image?: string | null;
  url?: string | null;
  because?: Because | null;
  [field: string]: unknown;
}

/** A list of items, and how it was made. */
export interface Recommendation {
  items: RankedItem[];
  /** Names the list. Events that name it are attributed to it; null in a local list. */
  list_id: string | null;
  user_id: string | null;
  session_id: string | null;
  /** What ranked it; `local` in a list of this client. */
  source: Known<"gpt4rec" | "item_cf" | "repeat" | "popular" | "local">;
  /** The rung of the ladder that answered; null in a local list. */
  rung: Known<"full" | "narrow" | "item_cf" | "popular"> | null;
  /** Whether the answer came from below the rung `full`, or from this client. */
  degraded: boolean;
  /** Why it is degraded, or shorter than asked for; of a local list, why the service gave none. */
  reason: Known<
    | "forced"
    | "breaker_open"
    | "latency_budget"
    | "error_budget"
    | "overload"
    | "deadline"
    | "model_error"
    | "filter_not_ready"
    | "model_evicted"
    | "state_unavailable"
    | "state_stale"
    | "not_enough_items"
    | LocalReason
  > | null;
  /** What the caller must know about the answer, in sentences. */
  warnings: string[];
  segment: string | null;
  strategy: string | null;
  model_version: string | null;
  arms: Record<string, string>;
  /** What became of the rules that held for the list. */
  rules?: { name: string; result: "held" | "bit" | "not_kept" }[];
  /** Asks for the next page; null or missing without one. */
  cursor?: string | null;
  request_id: string | null;
  /** Whether this client made the list: the last good one of the same question, or the configured one. */
  local: boolean;
  /** Why the service gave no list; only in a local one. */
  error?: ClientError;
  [member: string]: unknown;
}

/** Why this client made a list. */
export type LocalReason = "too_many_requests" | "unavailable" | "timed_out" | "unreachable" | "bad_answer";

/** Something that happened, as a page tells it. */
export interface EventInput {
  type: EventType;
  /** The item; nothing in a search, or in an impression of a whole list. */
  item_id?: string | null;
  user_id?: string | null;
  session_id?: string | null;
  /** Epoch milliseconds; now without. */
  timestamp?: number;
  /** Names the event; a random one without. */
  event_id?: string;
  list_id?: string | null;
  request_id?: string | null;
  /** Rating, price, dwell time … */
  value?: number;
  /** Text of a search. */
  query?: string;
}

/** An event with its subject, time and id: sent twice, it counts once. */
export interface StoredEvent extends EventInput {
  timestamp: number;
  event_id: string;
}

/** What became of a batch of events. */
export interface EventsAnswer {
  accepted: number;
  duplicates: number;
  unknown_items: string[];
  warnings: string[];
  request_id: string;
}

/** Items that go with an item. */
export interface Related {
  item_id: string;
  items: RankedItem[];
  /** What ranked them: `baskets`, `item_cf`. */
  source: string;
  /** What the caller must know, in sentences. */
  warnings?: string[];
  model_version: string;
  request_id: string;
}

/** What is stored of a user. */
export interface StoredUser {
  user_id: string;
  /** Newest last. */
  history: { item_id: string | null; type: string; timestamp_ms: number; event_id: string; query: string | null }[];
  seen_before: string[];
  segment: string;
  version: string;
  features: Record<string, Feature>;
  request_id: string;
}

/** What an erasure deleted. */
export interface Erased {
  user_id: string;
  deleted: number;
  entries: number;
  request_id: string;
}
