// The page: a list, clicks that change it, and a visitor who may agree, log in and be forgotten.
import { Client } from "./client/index.js";

const client = new Client({ baseUrl: "rec", budgetMs: 80, timeoutMs: 2000 });
const here = [];      // what was looked at on this page; without consent it is sent along with each question and stored nowhere
let who = { agreed: false, user: null };
let asking;           // ends the question that a newer one replaces

// What a visitor reads, by reason. Reasons that are not here change nothing that a visitor should know of.
const NOTES = {
  not_enough_items: "That is all we have here.",
  state_unavailable: "What you looked at before is not considered at the moment.",
  unreachable: "You seem to be offline. This is what we showed last.",
  too_many_requests: "This is what we showed last.",
  timed_out: "This is what we showed last.",
  unavailable: "This is what we showed last.",
};

async function show() {
  asking?.abort();
  const mine = (asking = new AbortController());
  busy(true);
  try {
    const list = await client.recommend({ k: 8, ...(who.agreed ? {} : { events: here }) }, mine.signal);
    draw("list", list.items, list);
    note(NOTES[list.reason] ?? "");
  } catch (error) {
    if (mine === asking) note("Nothing can be shown at the moment.");   // what is on screen stays there
  }
  if (mine === asking) busy(false);
}

async function look(item, list) {
  if (who.agreed) {
    client.track({ type: "click", item_id: item.item_id }, list);
    await client.flush();                                           // so that the next list knows it
  } else {
    here.push({ item_id: item.item_id, type: "click", timestamp: Date.now() });
  }
  await Promise.all([show(), like(item.item_id)]);
}

async function like(item_id) {
  try {
    draw("like", (await client.similar(item_id, { k: 4 })).items);
  } catch {
    draw("like", []);
  }
}

function draw(id, items, list) {
  document.getElementById(id).replaceChildren(
    ...items.map((item) => {
      const button = document.createElement("button");
      button.textContent = item.title ?? item.item_id;
      button.dataset.item = item.item_id;
      button.addEventListener("click", () => look(item, list));
      const place = document.createElement("li");
      place.append(button);
      return place;
    }),
  );
}

function busy(is) {
  document.getElementById("list").setAttribute("aria-busy", String(is));
}

function note(text) {
  document.getElementById("note").textContent = text;
}

async function ask(method, path, body) {
  const answer = await fetch(path, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  if (!answer.ok) note("That did not work. Please try again.");
  return answer.json();
}

async function change(call) {
  await call;
  who = await (await fetch("who")).json();
  document.getElementById("name").textContent = who.user === null ? "You are not logged in." : `Hello ${who.user}.`;
  const shown = { in: who.agreed && who.user === null, out: who.user !== null, agreed: who.agreed, asked: !who.agreed };
  for (const [kind, is] of Object.entries(shown)) document.querySelectorAll(`.${kind}`).forEach((node) => { node.hidden = !is; });
  await show();
}

document.getElementById("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = event.target.elements.user.value;
  change(client.flush().then(() => ask("POST", "login", { user })));   // what waits belongs to the session that logs in
});
document.getElementById("agree").addEventListener("click", () => change(ask("POST", "consent", {})));
document.getElementById("logout").addEventListener("click", () => change(ask("POST", "logout", {})));
document.getElementById("forget").addEventListener("click", () => {
  client.forget();
  here.length = 0;
  change(ask("DELETE", "me", {}));
});
change();
