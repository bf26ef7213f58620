// What the client decides without a network.
import assert from "node:assert/strict";
import { test } from "node:test";
import { content, pauseMs } from "../dist/calls.js";
import { Forbidden, InvalidRequest, problem, TimedOut, TooManyRequests, Unreachable } from "../dist/errors.js";
import { parts } from "../dist/items.js";
import { Outbox } from "../dist/outbox.js";

/** mulberry32: the same numbers in each run. */
function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("every event is accepted once, in order, or handed back", () => {
  for (let seed = 0; seed < 200; seed += 1) {
    const random = numbers(seed);
    const [added, dropped, accepted] = [[], [], []];
    let now = 100;
    let busy = false;
    const box = new Outbox({ most: 8, batch: 4, intervalMs: 10 }, (events) => dropped.push(...events), () => now);
    for (let step = 0; step < 60; step += 1) {
      const choice = random();
      if (choice < 0.4) {
        const event = { type: "view", item_id: String(added.length), event_id: String(added.length), timestamp: now };
        added.push(event);
        assert.equal(box.add(event), !dropped.includes(event));
      } else if (choice < 0.5) {
        now += 100_000 * random();
      } else if (choice < 0.6 && !busy) {
        box.entrust(Math.floor(random() * 3));
      } else if (choice < 0.7 && !busy) {
        box.distrust();
      } else if (box.dueIn(true) !== undefined) {
        now += box.dueIn(true);
        const batch = [...box.take()];
        busy = true;
        assert.ok(batch.length >= 1 && batch.length <= 4);
        assert.equal(box.dueIn(true), undefined);
        if (choice < 0.8) {
          accepted.push(...batch);
          box.accepted();
        } else if (choice < 0.87) {
          const errors = [{ loc: [], message: "bad", type: "bad", index: Math.floor(random() * batch.length) }];
          box.refused(new InvalidRequest(422, { errors }, null));
        } else if (choice < 0.92) {
          box.refused(problem(413, null, null));
        } else {
          box.refused(choice < 0.96 ? new Unreachable("away") : problem(429, null, "3"));
        }
        busy = false;
      }
      assert.ok(box.size <= 8);
      assert.equal(added.length, accepted.length + dropped.length + box.size);
    }
    box.abandon("the end");
    assert.deepEqual(new Set([...accepted, ...dropped]), new Set(added));
    assert.equal(accepted.length + dropped.length, added.length);
  }
});

test("a batch waits for others, then for as long as the service asks", () => {
  let now = 0;
  const box = new Outbox({ most: 9, batch: 2, intervalMs: 5000 }, () => undefined, () => now);
  assert.equal(box.dueIn(), undefined);
  const event = { type: "view", item_id: "1", event_id: "1", timestamp: 1, user_id: "ann" };
  box.add(event);
  assert.deepEqual([box.dueIn(), box.dueIn(true)], [5000, 0]);
  box.add({ ...event, event_id: "2", user_id: "bob" });
  assert.equal(box.dueIn(), 0);
  box.take();
  assert.equal(box.forget("ann"), true);
  box.refused(problem(429, null, "7"));
  assert.deepEqual([box.dueIn(true), box.size], [7000, 1], "who was erased meanwhile is not sent again");
  const pauses = [];
  for (let n = 0; n < 9; n += 1) {
    now += 100_000;
    box.take();
    box.refused(new Unreachable("away"));
    pauses.push(box.dueIn());
  }
  assert.deepEqual(pauses.slice(0, 3), [500, 1000, 2000]);
  assert.equal(pauses.at(-1), 30_000);
  assert.throws(() => new Outbox({ most: 1, batch: 2, intervalMs: 0 }, () => undefined, () => now), RangeError);
});

test("an import is sent in parts of bounded size", () => {
  const lines = Array.from({ length: 2500 }, (_, n) => ({ item_id: String(n), text: "é".repeat(n < 300 ? 2000 : 1) }));
  const bodies = [...parts(lines)];
  assert.ok(Math.max(...bodies.map((body) => Buffer.byteLength(body))) <= 512 * 1024);
  assert.deepEqual(bodies.flatMap((body) => body.split("\n").map((line) => JSON.parse(line))), lines);
});

test("a call is tried again while that helps, and asks for no more time than it has", () => {
  const wire = { retries: 2, random: () => 1 };
  assert.deepEqual([0, 1, 2].map((attempt) => pauseMs(new Unreachable("away"), attempt, wire)), [50, 100, undefined]);
  assert.equal(pauseMs(new TooManyRequests(429, null, "3"), 0, wire), 3000);
  assert.equal(pauseMs(new Forbidden(403, null, null), 0, wire), undefined);
  assert.equal(pauseMs(new TimedOut("late"), 0, wire), undefined);
  assert.equal(content({ budget_ms: 80 }, 50), '{"budget_ms":50}');
  assert.equal(content({ k: 3 }, 50), '{"k":3}');
  const page = problem(502, "<html>", "soon");
  assert.deepEqual([page.name, page.reason, page.retryAfterMs, page.faults], ["Unavailable", "http_502", undefined, []]);
});
