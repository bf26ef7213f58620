// Never run: `npm run check` fails if the types of the client refuse what they should take, or take what they should refuse.
import { Client, InvalidRequest, type EventInput, type Recommendation } from "../src/index.js";

export async function visit(client: Client): Promise<string> {
  const list: Recommendation = await client.recommend({ k: 3, filter: { category: ["a"] }, seed: 7 });
  const first = list.items[0];
  // @ts-expect-error a list may be empty
  first.item_id;
  const click: EventInput = { type: "click", item_id: first?.item_id ?? null };
  client.track(click, list);
  client.track({ type: "wishlist", item_id: "50" });
  // @ts-expect-error an event has a type
  client.track({ item_id: "50" });
  // @ts-expect-error the strategies are known
  await client.recommend({ decoding: { strategy: "best" } });
  const page = await client.nextPage(list, { k: 3 });
  // @ts-expect-error a list may have no next page
  page.items;
  for (const found of await client.recommendBatch([{ k: 3 }, { candidates: ["50"], seed: "fresh" }])) {
    if (!(found instanceof Error)) client.track(click, found);
  }
  // @ts-expect-error a seed is a number or fresh
  await client.recommend({ seed: "stale" });
  await client.items.put("50", { title: "A shoe", category: ["Shoes", ["Fashion", "Shoes"]], price: 9.5 });
  // @ts-expect-error a price is a number
  await client.items.patch("50", { price: "9.50" });
  // @ts-expect-error a line names its item
  await client.items.importLines([{ title: "A shoe" }]);
  // @ts-expect-error milliseconds are a number
  new Client({ timeoutMs: "1s" });
  // @ts-expect-error members of an event have names
  client.track({ type: "click", itemId: "50" });
  try {
    await client.flush();
  } catch (error) {
    if (error instanceof InvalidRequest) return error.faults.map((fault) => fault.message).join();
  }
  return list.reason === "too_many_requests" ? "later" : list.source;
}
