"""Records the examples of the OpenAPI document: `python -m tests.support.openapi_examples --artifact DIR`.

Every request is sent to a real service. Its answer, with long lists cut, is written to
`service/api/openapi/examples.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import PATIENT, Serve, items_of, serve

OUT = Path(__file__).resolve().parents[2] / "service" / "api" / "openapi" / "examples.json"
# Elements of a list that are kept.
_KEPT = 3
_TOKEN = {"Authorization": "Bearer tok"}
_VARYING = {
    "request_id": "3f0c9a5e1b7d4c2f8a6e0d9b7c5a3f1e",
    "git_commit": "0d1e2f3a",
    "artifact": "/artifacts/movielens-100k",
    "pid": 1,
}
# A replica is called by the name of its machine.
_REPLICA = re.compile(rf"\b{re.escape(socket.gethostname())}:[0-9]+")


@dataclass(frozen=True, slots=True)
class Call:
    """An operation, what is asked of it, and what it is shown with.

    Attributes:
        operation: Its id.
        call: Method and path.
        bodies: Its requests, by what they show; the answer is that to the first.
        answer_of: The operation whose answer is taken, for one that cannot be called here.
    """

    operation: str
    call: str
    bodies: dict[str, Any] | None = None
    answer_of: str | None = None


def calls(items: list[str]) -> list[Call]:
    """Returns the calls, in an order in which each finds what it needs."""
    user, session = "u-4711", "s-2b81"
    shop = [
        {
            "user_id": user,
            "item_id": one,
            "type": kind,
            "timestamp": 1_767_268_800_000 + 60_000 * n,
            "event_id": f"e-{n}",
        }
        for n, (one, kind) in enumerate(zip(items, ("view", "click", "cart", "purchase"), strict=False))
    ]
    anonymous = {"session_id": session, "item_id": items[4], "type": "view", "timestamp": "2026-01-01T12:00:00Z"}
    search = {"session_id": session, "type": "search", "query": "space opera", "timestamp": 1_767_268_860}
    seen = {"user_id": user, "type": "impression", "list_id": "01KEB2Z0M3T8QYV6W5N4R7XJDA", "timestamp": 1_767_268_900}
    features = {"features": {"age": "25-34", "newsletter": True}}
    rules = [
        {"name": "summer", "kind": "pin", "item": items[3], "position": 1},
        {"name": "variety", "kind": "at_most", "n": 2, "each": "category", "first": 6},
    ]
    reason = {"reason": "try wider beams"}
    arms = [{"name": "today", "share": 0.5}, {"name": "wider", "share": 0.5, "policies": _policies(8)}]
    experiment = {"name": "wider_beams", "layer": "decoding", "arms": arms, **reason}
    return [
        Call("events", "POST /events", {
            "events of a user": {"events": shop},
            "a session and its search": {"events": [anonymous, search]},
            "a list that was seen": {"events": [seen]},
        }),
        Call("recommend", "POST /recommend", {
            "a user": {"user_id": user, "k": 3},
            "a session": {"session_id": session, "k": 3, "scene": "home"},
            "events of this page": {"events": [{"item_id": items[0], "type": "click"}], "k": 3, "explain": True},
            "a category": {"user_id": user, "k": 3, "filter": {"category": ["Sci-Fi"]}, "exclude": [items[1]]},
            "a path, a price and what to show": {
                "user_id": user,
                "k": 3,
                "filter": {"category": ["Fashion > Women"], "price": {"gte": 10, "lt": 50}},
                "fields": ["title", "price", "image", "url"],
            },
            "these items": {"user_id": user, "candidates": items[5:9]},
            "a pinned item, and variety": {"user_id": user, "k": 3, "rules": rules},
        }),
        Call("recommend_batch", "POST /recommend/batch", {
            "two places of a page": {"requests": [{"user_id": user, "k": 2, "scene": one} for one in ("home", "cart")]},
        }),
        Call("similar", f"GET /items/{items[0]}/similar?k=3"),
        Call("together", f"GET /items/{items[0]}/together?k=3"),
        Call("recommend_for_basket", "POST /baskets/recommend", {"a basket": {"items": items[:2], "k": 3}}),
        *_item_calls(items[0]),
        Call("put_user_features", f"PUT /users/{user}/features", {"features": features}),
        Call("show_user_features", f"GET /users/{user}/features"),
        Call("put_session_features", f"PUT /sessions/{session}/features", {"features": features}),
        Call("show_session_features", f"GET /sessions/{session}/features"),
        Call("delete_session_features", f"DELETE /sessions/{session}/features"),
        Call("merge", "POST /sessions/merge", {"a login": {"session_id": session, "user_id": user}}),
        Call("show_user", f"GET /users/{user}"),
        Call("delete_user_features", f"DELETE /users/{user}/features"),
        Call("index", "GET /"),
        Call("healthz", "GET /healthz"),
        Call("readyz", "GET /readyz"),
        Call("version", "GET /version"),
        Call("playground_about", "GET /playground/about"),
        Call("playground_items", "GET /playground/items?q=star&limit=3"),
        Call("playground_sample", "GET /playground/sample?seed=7"),
        Call("playground_lists", "POST /playground/lists", {
            "a list beside that of item-CF": {
                "request": {"events": [{"item_id": items[0]}, {"item_id": items[1]}], "k": 3, "explain": True},
                "beside": {"rung": "item_cf"},
            },
        }),
        Call("playground_why", "POST /playground/why", {
            "two events": {"events": [{"item_id": items[0]}, {"item_id": items[1], "type": "click"}]},
        }),
        Call("ops_get_fallback", "GET /ops/fallback"),
        Call("ops_put_fallback", "PUT /ops/fallback", {
            "ten minutes without the model": {"mode": "fallback", "reason": "the GPU is replaced", "expires_in_s": 600},
            "back to normal": {"mode": "auto", "reason": "the GPU is back"},
        }),
        Call("ops_get_policies", "GET /ops/policies"),
        Call("ops_put_policies", "PUT /ops/policies", {"one decoding for everybody": {**_policies(5), **reason}}),
        Call("ops_delete_policies", "DELETE /ops/policies?reason=back%20to%20the%20file"),
        Call("ops_get_models", "GET /ops/models"),
        Call("ops_rollback_model", "", {"with a reason": {"reason": "late lists"}}, "ops_get_models"),
        Call("ops_activate_model", "", {"with a reason": {"reason": "better in the test"}}, "ops_get_models"),
        Call("ops_start_experiment", "POST /ops/experiments", {"two arms": experiment}),
        Call("ops_list_experiments", "GET /ops/experiments"),
        Call("ops_show_experiment", "GET /ops/experiments/wider_beams"),
        Call("ops_stop_experiment", "POST /ops/experiments/wider_beams/stop?dry_run=true", {"with a reason": reason}),
        Call("ops_promote_arm", "POST /ops/experiments/wider_beams/promote", {"an arm": {"arm": "wider", **reason}}),
        Call("ops_put_holdout", "PUT /ops/holdout?dry_run=true", {
            "one in a hundred": {"share": 0.01, "model": "MODEL", "reason": "what do later models earn"},
        }),
        Call("ops_delete_holdout", "DELETE /ops/holdout?dry_run=true"),
        Call("ops_status", "GET /ops/status"),
        Call("ops_get_audit", "GET /ops/audit?limit=3"),
        Call("ops_get_outcomes", "GET /ops/outcomes"),
        Call("erase_user", f"DELETE /users/{user}"),
    ]  # fmt: skip


def _item_calls(known: str) -> list[Call]:
    """The calls of the catalogue. `known` is an item of the export, which the new one resembles."""
    boots = {
        "title": "Trail Boots", "category": ["Fashion > Women > Shoes"], "brand": "Acme", "price": 89.9,
        "currency": "EUR", "stock": 12, "image": "https://shop.example/boots.jpg", "url": "/p/boots-38",
        "like": [known],
    }  # fmt: skip
    lines = [
        {"item_id": "boots-39", "title": "Trail Boots 39", "like": [known]},
        {"item_id": "boots-38", "op": "patch", "price": 79.9},
        {"item_id": "boots-38", "op": "colour"},
    ]
    return [
        Call("put_item", "PUT /items/boots-38", {"an item": boots}),
        Call("patch_item", "PATCH /items/boots-38", {"price and stock": {"price": 79.9, "stock": 3}}),
        Call("disable_item", "POST /items/boots-38/disable"),
        Call("enable_item", "POST /items/boots-38/enable"),
        Call("import_items", "POST /items", {"three lines": "".join(f"{json.dumps(one)}\n" for one in lines)}),
        Call("show_item", "GET /items/boots-38"),
        Call("list_items", "GET /items?q=trail&limit=2"),
        Call("delete_item", "DELETE /items/boots-39"),
        Call("ops_list_changes", "GET /ops/items/changes?limit=3"),
    ]


def _policies(width: int) -> dict[str, Any]:
    segment = {"name": "everybody", "decoding": {"strategy": "beam", "beam_width": width}}
    return {"segments": [segment], "default": "everybody"}


def shortened(value: Any, name: str = "") -> Any:
    """Returns an answer with its long lists and mappings cut, and what differs from run to run replaced."""
    if name in _VARYING and value is not None:
        return _VARYING[name]
    if isinstance(value, list):
        # A default names one of the segments.
        return [shortened(one) for one in (value if name == "segments" else value[:_KEPT])]
    if isinstance(value, dict):
        mapping = len(value) > 2 * _KEPT and len({type(one) for one in value.values()}) == 1
        kept = list(value.items())[:_KEPT] if mapping and name in ("codes", "features") else value.items()
        # A document of a service without the playground must not name it.
        return {key: shortened(one, key) for key, one in kept if (name, key) != ("links", "playground")}
    if isinstance(value, str):
        return _REPLICA.sub("shop-1:7", value)
    return round(value, 4) if isinstance(value, float) else value


def recorded(service: Serve, items: list[str], model: str) -> dict[str, Any]:
    """Sends the calls; returns bodies and answers by operation."""
    found: dict[str, Any] = {}
    for one in calls(items):
        bodies = json.loads(json.dumps(one.bodies).replace("MODEL", model))
        if one.answer_of is not None:
            answer = found[one.answer_of]["answer"]
        else:
            method, path = one.call.split(" ")
            first = next(iter(bodies.values())) if bodies else None
            sent = {"content": first} if isinstance(first, str) else {"json": first}
            got = service.client.request(method, path, **sent)
            if got.status_code != 200:
                sys.stderr.write(f"{one.operation}: {got.status_code} {got.text[:300]}\n")
                continue
            answer = shortened(got.json())
        found[one.operation] = {**({"requests": bodies} if bodies else {}), "answer": answer}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, required=True, help="folder of an artefact with titles")
    artifact = parser.parse_args().artifact.resolve()
    settings = {**PATIENT, "GPT4REC_PLAYGROUND": "true"}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder), "--artifact", str(artifact), "--redis", "embedded", **settings) as service,
    ):
        service.client.headers.update(_TOKEN)
        found = recorded(service, items_of(artifact), artifact.name)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    # Short lists and objects on one line each.
    text = re.sub(r"\[\s+([^\[\]{}]{0,100}?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text)
    OUT.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
