/** The page around the client: it is hidden, shown again and left. */

/** What the client uses of a browser's window. */
export interface Page {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
  readonly document: {
    readonly visibilityState: string;
    addEventListener(type: string, listener: () => void): void;
    removeEventListener(type: string, listener: () => void): void;
  };
  readonly navigator: { sendBeacon?: (url: string, body: Blob) => boolean };
}

/** What browsers carry after a page is gone, for all its requests together: 64 KiB. A little is left to others. */
export const BYTES_MAX = 60_000;

/** Returns the window of this page; nothing in node and in workers. */
export function pageHere(): Page | undefined {
  return "document" in globalThis && "navigator" in globalThis ? (globalThis as unknown as Page) : undefined;
}

/**
 * Calls `hidden` when the page is hidden or left, which may be the last that it can do, and `shown` when it is back.
 * Returns a function that ends this.
 */
export function watch(page: Page, hidden: () => void, shown: () => void): () => void {
  const changed = (): void => (page.document.visibilityState === "hidden" ? hidden() : shown());
  page.document.addEventListener("visibilitychange", changed);
  page.addEventListener("pagehide", hidden);
  page.addEventListener("pageshow", shown);
  return () => {
    page.document.removeEventListener("visibilitychange", changed);
    page.removeEventListener("pagehide", hidden);
    page.removeEventListener("pageshow", shown);
  };
}
