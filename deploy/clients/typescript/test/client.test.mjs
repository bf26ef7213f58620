// The client against a service that runs as a process of its own: GPT4REC_URL names it.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { afterEach, test } from "node:test";
import {
  Client,
  Conflict,
  Forbidden,
  Gone,
  InvalidRequest,
  NotFound,
  TimedOut,
  TooManyRequests,
  Unauthorized,
  Unreachable,
} from "../dist/index.js";

const { GPT4REC_URL: baseUrl, GPT4REC_OPERATOR_KEY: operator, GPT4REC_PAGE_KEY: page, GPT4REC_RATED_KEY: rated } = process.env;
const PATIENCE_MS = 30_000;

const open = [];

afterEach(() => Promise.all(open.splice(0).map((client) => client.close())));

/** A client that its test need not close. */
function opened(options) {
  const client = new Client({ closeTimeoutMs: 0, onDrop: () => undefined, ...options });
  open.push(client);
  return client;
}

/** A client with the rights of an operator, and patience for a busy test machine. */
function connected(options = {}) {
  return opened({ baseUrl, apiKey: operator, timeoutMs: PATIENCE_MS, queue: { intervalMs: 0 }, ...options });
}

test("a space is part of every address", async () => {
  const urls = [];
  const answered = async (url) => {
    urls.push(String(url));
    return new Response(JSON.stringify({ items: [] }), { status: 200, headers: { "Content-Type": "application/json" } });
  };
  for (const more of [{ space: "shoes" }, { space: "a/b", prefix: "" }, {}]) {
    await opened({ baseUrl: "http://shop.example/rec/", fetch: answered, timeoutMs: PATIENCE_MS, ...more }).similar("1");
  }
  assert.deepEqual(urls.map((url) => new URL(url).pathname), [
    "/rec/spaces/shoes/v1/items/1/similar", "/rec/spaces/a%2Fb/items/1/similar", "/rec/v1/items/1/similar",
  ]);
});

/** The network between, which breaks before or after the service has answered. */
function breaking() {
  const network = async (url, init) => {
    if (network.before > 0) {
      network.before -= 1;
      throw new TypeError("nobody is there");
    }
    const response = await fetch(url, init);
    if (network.after > 0) {
      network.after -= 1;
      await response.arrayBuffer();
      throw new TypeError("the connection broke");
    }
    return response;
  };
  return Object.assign(network, { before: 0, after: 0 });
}

/** The part of a window that the client watches, and a beacon that a browser would send. */
class Window extends EventTarget {
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  sent = [];
  navigator = {
    sendBeacon: (url, body) => {
      this.sent.push(fetch(url, { method: "POST", body }));
      return true;
    },
  };

  hide() {
    this.document.visibilityState = "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
    this.dispatchEvent(new Event("pagehide"));
  }

  show() {
    this.document.visibilityState = "visible";
    this.document.dispatchEvent(new Event("visibilitychange"));
    this.dispatchEvent(new Event("pageshow"));
  }
}

function keeper() {
  const kept = new Map();
  return {
    kept,
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, value),
    removeItem: (name) => void kept.delete(name),
  };
}

/** Waits for what replicas learn of each other. */
async function until(holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, "it does not come true");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const items = (list) => list.items.map((item) => item.item_id);
const history = async (client, user) => (await client.user(user)).history.map((event) => event.item_id);

test("a click on a list is known to the next one and to the user who logs in", async () => {
  const client = connected();
  const list = await client.recommend({ k: 5 });
  assert.equal(list.items.length, 5);
  assert.equal(list.local, false);
  const [clicked] = items(list);
  assert.equal(client.event({ type: "click", item_id: clicked }, list).list_id, list.list_id);
  assert.ok(client.track({ type: "click", item_id: clicked }, list));
  assert.equal(await client.flush(PATIENCE_MS), 0);
  assert.ok(!items(await client.recommend({ k: 5, exclude_seen: true })).includes(clicked));
  assert.equal(await client.login("ts/ann"), 1);
  assert.deepEqual(await history(client, "ts/ann"), [clicked]);
  const mine = await client.recommend({ k: 5, exclude_seen: true });
  assert.equal(mine.user_id, "ts/ann");
  assert.ok(!items(mine).includes(clicked));
  assert.equal((await client.similar(clicked, { k: 3 })).items.length, 3);
  assert.deepEqual((await client.putUserFeatures("ts/ann", { age: "old" })).features, { age: "old" });
  const session = client.sessionId;
  client.logout();
  assert.notEqual(client.sessionId, session);
  assert.ok((await client.erase("ts/ann")).deleted > 0);
  await assert.rejects(client.user("ts/ann"), NotFound);
  assert.equal(await client.close(), 0);
});

test("an event whose answer was lost counts once", async () => {
  const network = breaking();
  const client = connected({ fetch: network, retries: 1 });
  const event = client.event({ type: "click", item_id: "i3", user_id: "ts-twice" });
  network.after = 1;
  assert.equal((await client.send([event])).duplicates, 1);
  network.after = 2; // every try of the first batch: the event goes back into the queue
  client.track({ type: "cart", item_id: "i4", user_id: "ts-twice" });
  await client.flush(PATIENCE_MS);
  assert.deepEqual(await history(client, "ts-twice"), ["i3", "i4"]);
});

test("what waits of a session counts once as the user's", async () => {
  const network = breaking();
  const client = connected({ fetch: network, retries: 0, sessionId: "ts-late" });
  const event = client.event({ type: "click", item_id: "i7" });
  assert.equal((await client.send([event])).accepted, 1);
  network.before = 1;
  client.track(event);
  client.track({ type: "click", item_id: "i8" });
  await client.login("ts-late-user");
  assert.equal(await client.flush(PATIENCE_MS), 0);
  assert.deepEqual(await history(client, "ts-late-user"), ["i7", "i8"]);
});

test("an invalid event is handed back and the others arrive", async () => {
  const dropped = [];
  const onDrop = (events, why) => dropped.push([events.map((event) => event.item_id), why]);
  const client = connected({ onDrop, queue: { intervalMs: 60_000, batch: 3, most: 3 } });
  for (const item_id of ["i5", "", "i6"]) client.track({ type: "view", item_id, user_id: "ts-mixed" });
  assert.equal(client.track({ type: "view", item_id: "i9", user_id: "ts-mixed" }), false);
  assert.equal(await client.flush(PATIENCE_MS), 0);
  assert.deepEqual(await history(client, "ts-mixed"), ["i5", "i6"]);
  assert.deepEqual(dropped.map(([ids]) => ids), [["i9"], [""]]);
  assert.match(dropped[0][1], /holds 3/);
  assert.match(dropped[1][1], /events\.1\.item_id/);
});

test("problem documents are typed errors", async () => {
  const client = connected();
  await assert.rejects(client.recommend({ k: 1000 }), (error) => {
    assert.ok(error instanceof InvalidRequest);
    assert.deepEqual([error.status, error.reason, error.name], [422, "invalid_request", "InvalidRequest"]);
    assert.deepEqual(error.faults[0].loc, ["k"]);
    assert.ok(error.requestId);
    return true;
  });
  const event = client.event({ type: "view", item_id: "i1" });
  await assert.rejects(connected({ apiKey: undefined }).send([event]), Unauthorized);
  await assert.rejects(connected({ apiKey: page }).erase("u"), Forbidden);
  await assert.rejects(connected({ prefix: "/v0" }).similar("i1"), NotFound);
});

test("above the rate the last good list is shown and marked", async () => {
  const client = connected({ apiKey: rated, timeoutMs: 5000, userId: "ts-rated" });
  const good = await client.recommend({ k: 3 });
  for (let n = 0; n < 4; n += 1) await client.similar("i1");
  const local = await client.recommend({ k: 2 });
  assert.deepEqual([local.local, local.source, local.reason, local.list_id], [true, "local", "too_many_requests", null]);
  assert.deepEqual(items(local), items(good).slice(0, 2));
  await assert.rejects(client.similar("i1"), (error) => error instanceof TooManyRequests && error.retryAfterMs >= 1000);
});

test("without a service the configured list is shown but never what was excluded or filtered", async () => {
  const network = breaking();
  const fallback = ["i9", { item_id: "i8", title: "Eight" }, "i9", "i7"];
  const client = connected({ fetch: network, retries: 0, fallback });
  const good = await client.recommend({ user_id: "ts-away", k: 2 });
  network.before = 100;
  assert.deepEqual(items(await client.recommend({ user_id: "ts-away", k: 2, exclude: [items(good)[0]] })), items(good).slice(1));
  const other = await client.recommend({ k: 2, exclude: ["i9"] });
  assert.deepEqual(other.items.map((item) => [item.item_id, item.rank, item.title]), [["i8", 1, "Eight"], ["i7", 2, null]]);
  assert.ok(other.error instanceof Unreachable);
  await assert.rejects(client.recommend({ filter: { category: ["a"] } }), Unreachable);
  client.forget();
  assert.deepEqual(items(await client.recommend({ user_id: "ts-away", k: 1 })), ["i9"]);
});

test("several lists come at once, each answered or refused by itself", async () => {
  const network = breaking();
  const client = connected({ fetch: network, retries: 0, sessionId: "ts-batch" });
  const asked = [{ user_id: "ts-batch", k: 2 }, { k: 0 }, { candidates: ["i3", "i1", "i2"], seed: "fresh" }];
  const [one, two, three] = await client.recommendBatch(asked);
  assert.deepEqual([one.items.length, one.user_id, one.session_id, three.session_id], [2, "ts-batch", null, "ts-batch"]);
  assert.ok(two instanceof InvalidRequest);
  assert.deepEqual(items(three).sort(), ["i1", "i2", "i3"]);
  network.before = 3;
  const again = await client.recommendBatch([...asked, { scene: "search", candidates: ["i9", "i8"], exclude: ["i9"] }]);
  assert.deepEqual(again.map((list) => list.reason), ["unreachable", undefined, "unreachable", "unreachable"]);
  assert.ok(again[1] instanceof Unreachable);
  assert.deepEqual(items(again[3]), ["i8"], "items that are named stand in their own order");
});

test("a list has pages, without a repeat, until its user is erased", async () => {
  const client = connected({ userId: "ts-pages" });
  client.track({ type: "view", item_id: "i1" });
  await client.flush(PATIENCE_MS);
  const shown = [];
  let page = await client.recommend({ k: 15, page: true, exclude_seen: false });
  const first = page;
  for (; page !== undefined; page = await client.nextPage(page, { k: 15 })) shown.push(...items(page));
  assert.equal(new Set(shown).size, shown.length);
  assert.equal(shown.length, 40);
  await client.erase("ts-pages");
  await assert.rejects(client.nextPage(first), Gone);
});

test("the catalogue is changed, shown, searched and imported", async () => {
  const { items: catalogue } = connected();
  const made = await catalogue.put("boot/1", { title: "Green hiking boot", price: 49.5, currency: "EUR", like: ["i1"] });
  assert.deepEqual([made.outcome, made.item_id], ["created", "boot/1"]);
  const changed = await catalogue.patch("boot/1", { stock: 3 }, made.version);
  await assert.rejects(catalogue.patch("boot/1", { stock: 4 }, made.version), Conflict);
  const shown = await catalogue.get("boot/1");
  assert.deepEqual([shown.item.stock, shown.item.price, shown.version], [3, 49.5, changed.version]);
  await until(async () => (await catalogue.search("gren hikin"))[0]?.item_id === "boot/1");
  assert.equal((await catalogue.disable("boot/1")).disabled, true);
  await until(async () => !(await catalogue.get("boot/1")).listed);
  assert.equal((await catalogue.enable("boot/1")).disabled, false);
  const report = await catalogue.importLines([
    { item_id: "boot/2", title: "Red boot" },
    { item_id: "boot/3", price: -1 },
    { item_id: "boot/1", op: "delete" },
  ]);
  assert.deepEqual(report.map((one) => [one.line, one.outcome]), [[1, "created"], [2, "refused"], [3, "deleted"]]);
  await until(async () => (await catalogue.page()).items[0].item_id === "boot/2");
  const first = await catalogue.page(null, { limit: 30 });
  const second = await catalogue.page(first.cursor, { limit: 30 });
  const found = [...first.items, ...second.items].map((item) => item.item_id);
  assert.equal(new Set(found).size, found.length);
  assert.ok(Array.from({ length: 40 }, (_, n) => `i${n}`).every((item) => found.includes(item)));
  assert.equal((await catalogue.delete("boot/2")).outcome, "deleted");
  await assert.rejects(catalogue.get("boot/2"), NotFound);
});

test("what goes with an item and with a basket is never in it", async () => {
  const network = breaking();
  const client = connected({ fetch: network, retries: 0, fallback: ["i1", "i2", "i3"] });
  assert.equal((await client.together("i1", { k: 3 })).items.length, 3);
  const list = await client.recommendForBasket(["i1", "i4"], { k: 3 });
  assert.deepEqual([list.items.length, list.session_id], [3, client.sessionId]);
  assert.ok(!items(list).some((item) => item === "i1" || item === "i4"));
  network.before = 1;
  assert.deepEqual(items(await client.recommendForBasket(["i1"], { k: 5 })), ["i2", "i3"]);
});

test("items have the fields that were asked for", async () => {
  const client = connected();
  const [item] = (await client.recommend({ k: 1, fields: ["brand", "category"] })).items;
  assert.equal(item.title, undefined);
  assert.ok(["x", "y"].includes(item.brand) && item.category.length > 0);
  const [like] = (await client.similar("i1", { k: 1, fields: ["title", "brand"] })).items;
  assert.ok(like.title && ["x", "y"].includes(like.brand));
  const [bought] = (await client.recommendForBasket(["i1"], { k: 1, fields: ["brand"] })).items;
  assert.ok(["x", "y"].includes(bought.brand));
});

test("rules of a question are reported", async () => {
  const rules = [{ name: "top", kind: "pin", item: "i5", position: 1 }];
  const list = await connected().recommend({ k: 3, rules, exclude_seen: false });
  assert.equal(items(list)[0], "i5");
  assert.deepEqual(list.rules.map((rule) => rule.name), ["top"]);
});

test("a call ends with its time, or when its caller ends it", async () => {
  const deaf = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => deaf.once("listening", resolve));
  const client = opened({ baseUrl: `http://127.0.0.1:${deaf.address().port}`, timeoutMs: 20, fallback: ["i1"] });
  await assert.rejects(client.similar("i1"), TimedOut);
  assert.equal((await client.recommend()).reason, "timed_out");
  const patient = opened({ baseUrl: `http://127.0.0.1:${deaf.address().port}`, timeoutMs: PATIENCE_MS, fallback: ["i1"] });
  const ending = new AbortController();
  const asked = patient.recommend({}, ending.signal);
  ending.abort(new Error("the page asks something else"));
  await assert.rejects(asked, /something else/);
  deaf.close();
});

test("a page that is hidden hands its events to the browser, and they count once when it is back", async () => {
  const window = new Window();
  const posted = [];
  const network = (url, init) => (posted.push(init), fetch(url, init));
  const options = { page: window, fetch: network, queue: { intervalMs: 60_000 }, sessionId: "ts-hidden" };
  const client = connected(options);
  client.track({ type: "view", item_id: "i1" });
  window.hide();
  assert.equal(posted.length, 1, "the key needs a header, so no beacon; and what was entrusted is entrusted once");
  assert.equal(posted[0].keepalive, true);
  client.track({ type: "view", item_id: "i2" });
  window.show();
  assert.equal(await client.flush(PATIENCE_MS), 0);
  await client.login("ts-hidden-user");
  assert.deepEqual(await history(client, "ts-hidden-user"), ["i1", "i2"]);
});

test("a beacon carries what browsers carry, and the next page sends the rest", async () => {
  const window = new Window();
  const storage = keeper();
  const bodies = [];
  window.navigator.sendBeacon = (url, body) => (bodies.push(body), url.endsWith("/v1/events"));
  const queue = { intervalMs: 60_000, batch: 1000 };
  const first = opened({ baseUrl, page: window, storage, queue });
  for (let n = 0; n < 500; n += 1) first.track({ type: "search", query: "é".repeat(100), item_id: n === 499 ? "i5" : "i4" });
  window.hide();
  assert.equal(bodies.length, 2, "visibilitychange and pagehide");
  assert.ok(bodies[0].size <= 60_000 && bodies[0].size > 50_000);
  const parts = await Promise.all(bodies.map(async (body) => JSON.parse(await body.text()).events));
  assert.equal(new Set(parts.flat().map((event) => event.event_id)).size, parts.flat().length);
  const second = connected({ storage, queue });
  assert.equal(second.sessionId, first.sessionId);
  assert.equal(await second.flush(PATIENCE_MS), 0);
  await second.login("ts-next-page");
  const events = (await second.user("ts-next-page")).history;
  assert.ok(events.some((event) => event.item_id === "i5"), "the last of them arrived");
  assert.equal(storage.getItem("gpt4rec.events"), null);
});

test("a browser's own fetch is called as it wants to be, and a storage that refuses harms nothing", async () => {
  const strict = function (url, init) {
    if (this !== undefined && this !== globalThis) throw new TypeError("Illegal invocation");
    return fetch(url, init);
  };
  const refuse = () => {
    throw new Error("QuotaExceededError");
  };
  const client = connected({ fetch: strict, storage: { getItem: refuse, setItem: refuse, removeItem: refuse } });
  assert.equal((await client.recommend({ k: 1 })).local, false);
  client.forget();
});

test("a client that is closed without its service hands back what waited", async () => {
  const dropped = [];
  const client = new Client({ baseUrl: "http://127.0.0.1:1", closeTimeoutMs: 0, onDrop: (events) => dropped.push(...events) });
  client.track({ type: "view", item_id: "i1" });
  assert.equal(await client.close(), 1);
  assert.equal(dropped.length, 1);
  assert.throws(() => client.track({ type: "view", item_id: "i1" }), /closed/);
});
