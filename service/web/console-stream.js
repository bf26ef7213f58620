// Server-sent events, read with fetch: an EventSource can send the token only in the address.
import { headersOf, refusal, Refusal } from "./base.js";

const QUIET_MS = 6000; // a stream that is silent for this long is dead
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const FINAL = [401, 403, 404];

/**
 * Stays connected until `close()`. Calls `on.status(snapshot)`, `on.link(state, seconds)` with "live", "waiting" (seconds
 * until the next try) or "connecting", and `on.refused(error)` once, when no further try makes sense.
 */
export class Stream {
  constructor(secret, on) {
    this.secret = secret;
    this.on = on;
    this.closed = false;
    this.hurried = false;
    this.wait = FIRST_WAIT_MS;
    this.run();
  }

  close() {
    this.closed = true;
    this.abort?.abort();
    this.hurry?.();
  }

  /** Connects now instead of waiting: also if the try that is under way fails. */
  now() {
    this.hurried = true;
    this.hurry?.();
  }

  async run() {
    while (!this.closed) {
      this.on.link("connecting");
      try {
        await this.read();
      } catch (error) {
        if (this.closed) return;
        if (error instanceof Refusal && FINAL.includes(error.status)) {
          this.closed = true;
          this.on.refused(error);
          return;
        }
      }
      if (!this.closed) await this.pause();
    }
  }

  async read() {
    this.abort = new AbortController();
    let watch;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => this.abort.abort(), QUIET_MS);
    };
    alive();
    try {
      const response = await fetch("ops/stream", {
        headers: headersOf(this.secret), cache: "no-store", signal: this.abort.signal,
      });
      if (!response.ok) throw await refusal(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let kept = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        alive();
        const events = (kept + value).split("\n\n");
        kept = events.pop();
        for (const event of events) this.hear(event);
      }
    } finally {
      clearTimeout(watch);
      this.abort.abort();
    }
  }

  hear(event) {
    const lines = event.split("\n");
    const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
    const data = JSON.parse(lines.find((line) => line.startsWith("data: ")).slice(6));
    if (name === "status") {
      this.wait = FIRST_WAIT_MS;
      this.hurried = false;
      this.on.link("live");
      this.on.status(data);
    } else if (name === "end" && ["unauthorized", "forbidden", "not_found"].includes(data.reason)) {
      throw new Refusal(401, "This token was withdrawn. Log in with another one.");
    }
  }

  /** Waits longer after each failure, with some jitter, so that many consoles do not reconnect together. */
  async pause() {
    const until = Date.now() + this.wait * (0.8 + 0.4 * Math.random());
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
    while (!this.closed && !this.hurried && Date.now() < until) {
      this.on.link("waiting", Math.ceil((until - Date.now()) / 1000));
      await new Promise((go) => {
        const timer = setTimeout(go, Math.min(1000, until - Date.now()));
        this.hurry = () => {
          clearTimeout(timer);
          go();
        };
      });
    }
    this.hurried = false;
    this.hurry = null;
  }
}
