/** The catalogue, for backends: `client.items`. The key needs the right `items`; reading needs none. */

import { make, type Call, type Wire } from "./calls.js";

// Of one request: bodies of services are bounded by their size, too.
const LINES_MAX = 1000;
const LINES_BYTES_MAX = 512 * 1024;

/** What is stored of an item. A field that is left out is that of the updates file, else of the export. */
export interface ItemFields {
  title?: string | null;
  /** A description, which helps to place a new item. */
  text?: string | null;
  /** Names, and paths as "Fashion > Women > Shoes" or as a list of steps. */
  category?: (string | string[])[] | null;
  brand?: string | null;
  /** In `currency`. */
  price?: number | null;
  /** Three capital letters. */
  currency?: string | null;
  /** Pieces; with 0 it is not listed. */
  stock?: number | null;
  in_stock?: boolean | null;
  image?: string | null;
  url?: string | null;
  attributes?: string[] | null;
  valid_from?: string | number | null;
  valid_until?: string | number | null;
  /** Exported items that a new item resembles. */
  like?: string[] | null;
  /** A vector of the shop's own making. */
  vector?: number[] | null;
}

/** One line of an import: an item, what to do with it (`put` without), and its fields. */
export interface ItemLine extends ItemFields {
  item_id: string;
  op?: "put" | "patch" | "disable" | "enable" | "delete";
  if_version?: number;
}

/** What became of a change. */
export interface ItemChange {
  item_id: string;
  outcome: "created" | "updated" | "unchanged" | "deleted";
  /** Grows with every change; null after a deletion. */
  version: number | null;
  disabled: boolean;
  warnings: string[];
  request_id: string;
}

/** An item as lists have it. */
export interface Item {
  item_id: string;
  /** What is known of it, from all sources. */
  item: Record<string, unknown>;
  /** Of the stored fields; null if nothing is stored. */
  version: number | null;
  changed_at: string | null;
  disabled: boolean;
  /** Whether lists may have it now. */
  listed: boolean;
  placed_by: string | null;
}

/** A page of items. */
export interface ItemPage {
  items: Item[];
  /** Asks for the next page; null on the last. */
  cursor: string | null;
}

/** What became of a line of an import. */
export interface ImportedLine {
  /** Its number, from 1. */
  line: number;
  item_id: string | null;
  outcome: "created" | "updated" | "unchanged" | "deleted" | "missing" | "conflict" | "full" | "refused";
  version: number | null;
  error: string | null;
}

/**
 * The catalogue. A change is written when its call resolves, and lists of every replica have it soon after.
 *
 * With `ifVersion` a change is made only if the item has this version (0: nothing is stored), else `Conflict` is thrown;
 * so it is after a further try of a change whose answer was lost.
 */
export class Items {
  constructor(private readonly wire: Wire) {}

  /** Stores an item in place of what was stored of it. */
  put(itemId: string, fields: ItemFields, ifVersion?: number): Promise<ItemChange> {
    return this.#change("PUT", pathOf(itemId) + version(ifVersion), { ...fields });
  }

  /** Stores some fields of an item; null takes one away, so that the other sources show again. */
  patch(itemId: string, fields: ItemFields, ifVersion?: number): Promise<ItemChange> {
    return this.#change("PATCH", pathOf(itemId) + version(ifVersion), { ...fields });
  }

  /** Deletes what is stored of an item, so that the other sources show again. */
  delete(itemId: string, ifVersion?: number): Promise<ItemChange> {
    return this.#change("DELETE", pathOf(itemId) + version(ifVersion));
  }

  /** Takes an item out of all lists until it is enabled. */
  disable(itemId: string): Promise<ItemChange> {
    return this.#change("POST", `${pathOf(itemId)}/disable`);
  }

  /** Lets an item back into lists that was disabled. */
  enable(itemId: string): Promise<ItemChange> {
    return this.#change("POST", `${pathOf(itemId)}/enable`);
  }

  /** Returns an item as lists have it. */
  get(itemId: string, signal?: AbortSignal): Promise<Item> {
    return make(this.wire, { method: "GET", path: pathOf(itemId), has: ["item_id", "item"] }, signal);
  }

  /** Returns a page of all items; `listed` shows only those that lists may have. */
  page(cursor?: string | null, { limit = 50, listed = false } = {}, signal?: AbortSignal): Promise<ItemPage> {
    const query = new URLSearchParams({ limit: String(limit), listed: String(listed), ...(cursor == null ? {} : { cursor }) });
    return make(this.wire, { method: "GET", path: `/items?${query}`, has: ["items"] }, signal);
  }

  /** Returns items by words of their titles, the best first. The last word may be incomplete; typos are found. */
  async search(words: string, { limit = 50, listed = false } = {}, signal?: AbortSignal): Promise<Item[]> {
    const query = new URLSearchParams({ q: words, limit: String(limit), listed: String(listed) });
    const call: Call<ItemPage> = { method: "GET", path: `/items?${query}`, has: ["items"] };
    return (await make(this.wire, call, signal)).items;
  }

  /** Makes many changes, in requests of bounded size, and reports on each line. A bad line harms no other. */
  async importLines(lines: Iterable<ItemLine>): Promise<ImportedLine[]> {
    const report: ImportedLine[] = [];
    for (const part of parts(lines)) {
      const before = report.length;
      const call: Call<{ lines: ImportedLine[] }> = { method: "POST", path: "/items", lines: part, has: ["lines"] };
      const found = (await make(this.wire, call)).lines;
      report.push(...found.map((one) => ({ ...one, line: before + one.line })));
    }
    return report;
  }

  #change(method: Call<ItemChange>["method"], path: string, body?: Record<string, unknown>): Promise<ItemChange> {
    return make(this.wire, { method, path, has: ["item_id", "outcome"], ...(body === undefined ? {} : { body }) });
  }
}

/** Yields the bodies of an import. */
export function* parts(lines: Iterable<ItemLine>): Generator<string> {
  let texts: string[] = [];
  let size = 0;
  for (const line of lines) {
    const text = JSON.stringify(line);
    const bytes = new TextEncoder().encode(text).length + 1;
    if (texts.length > 0 && (texts.length === LINES_MAX || size + bytes > LINES_BYTES_MAX)) {
      yield texts.join("\n");
      texts = [];
      size = 0;
    }
    texts.push(text);
    size += bytes;
  }
  if (texts.length > 0) yield texts.join("\n");
}

function pathOf(itemId: string): string {
  return `/items/${encodeURIComponent(itemId)}`;
}

function version(ifVersion: number | undefined): string {
  return ifVersion === undefined ? "" : `?if_version=${ifVersion}`;
}
