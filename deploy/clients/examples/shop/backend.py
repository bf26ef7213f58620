"""A shop's backend: it knows who is there, and passes the questions and events of its page on.

Run it as `python backend.py --service http://127.0.0.1:8000 --key shop-key`, and open the address that it prints. It
needs gpt4rec-client alone. The page uses the other client, whose build it serves
(`npm ci && npm run build` in `deploy/clients/typescript`).
"""

from __future__ import annotations

import argparse
import json
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gpt4rec_client import Client, ClientError, Event, Problem

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[1] / "typescript" / "dist"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
BODY_MAX = 256 * 1024
# What a page may ask for. Whose list it is, and which arm of an experiment, is not the page's to say.
ASKED = (
    "k",
    "events",
    "scene",
    "context",
    "filter",
    "exclude",
    "exclude_seen",
    "explain",
    "budget_ms",
    "seed",
    "fields",
)
TOLD = ("type", "item_id", "timestamp", "event_id", "list_id", "value", "query")
# Nobody agreed to be remembered: lists are made from what the page itself has seen, and from what is popular.
NOBODY = {"session_id": "nobody"}


class Shop:
    """Who is there, by the cookie `visit`. A real shop has its own logins; this one forgets them when it ends."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users: dict[str, str] = {}

    def subject(self, visit: str | None) -> dict[str, str]:
        """Returns whose list it is: a user's, an anonymous session's, or nobody's."""
        if visit is None:
            return NOBODY
        user = self.users.get(visit)
        return {"session_id": visit} if user is None else {"user_id": user}

    def recommend(self, body: Mapping[str, Any], visit: str | None) -> Mapping[str, Any]:
        """Passes a question on."""
        asked = {name: body[name] for name in ASKED if name in body}
        return self.client.recommend(more={**asked, **self.subject(visit)}).raw

    def events(self, body: Mapping[str, Any], visit: str | None) -> Mapping[str, Any]:
        """Stores events of a visitor who agreed. They keep their ids, so what the page sends twice counts once."""
        if visit is None:
            return {"accepted": 0, "duplicates": 0, "unknown_items": [], "warnings": ["the visitor did not agree"]}
        told: list[dict[str, Any]] = [{name: one[name] for name in TOLD if name in one} for one in body["events"]]
        for event in told:
            event["timestamp_ms"] = event.pop("timestamp")
            event.update(self.subject(visit))
        answer = self.client.send([Event(**event) for event in told])
        return {
            "accepted": answer.accepted,
            "duplicates": answer.duplicates,
            "unknown_items": answer.unknown_items,
            "warnings": answer.warnings,
        }

    def login(self, user: str, visit: str) -> Mapping[str, Any]:
        """The visitor logs in: what the session did is the user's from now on."""
        merged = self.client.merge(visit, user)
        self.users[visit] = user
        return {"user": user, "merged": merged}

    def erase(self, visit: str | None) -> Mapping[str, Any]:
        """Deletes what is known of the visitor. A session is made a user first, for users alone can be erased."""
        if visit is None:
            return {"deleted": 0}
        user = self.users.pop(visit, None)
        if user is None:
            user = f"erased-{visit}"
            self.client.merge(visit, user)
        return {"deleted": self.client.erase(user).deleted}


class Handler(BaseHTTPRequestHandler):
    """One request of a browser."""

    shop: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Files of the page, its client, and items like an item."""
        path = urlsplit(self.path).path
        if path.startswith("/rec/v1/items/") and path.endswith("/similar"):
            item = unquote(path.removeprefix("/rec/v1/items/").removesuffix("/similar"))
            self._answer(lambda: self.shop.client.similar(item, k=4).raw)
        elif path == "/who":
            visit = self._visit()
            self._answer(lambda: {"agreed": visit is not None, "user": self.shop.users.get(visit or "")})
        else:
            self._file("/page.html" if path == "/" else path)

    def do_POST(self) -> None:
        """Questions, events, and who the visitor is."""
        visit = self._visit()
        body = self._body()
        if body is None:
            self._send(HTTPStatus.BAD_REQUEST, b"{}", "application/json")
        elif self.path == "/rec/v1/recommend":
            self._answer(lambda: self.shop.recommend(body, visit))
        elif self.path == "/rec/v1/events":
            self._answer(lambda: self.shop.events(body, visit))
        elif self.path == "/consent":
            agreed = visit or secrets.token_urlsafe(16)
            self._answer(lambda: {"agreed": True}, cookie=agreed)
        elif self.path == "/login" and visit is not None:
            self._answer(lambda: self.shop.login(str(body["user"]), visit))
        elif self.path == "/logout":
            self.shop.users.pop(visit or "", None)
            self._answer(lambda: {"user": None}, cookie=secrets.token_urlsafe(16))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"{}", "application/json")

    def do_DELETE(self) -> None:
        """Consent is withdrawn: everything about the visitor goes, here, in the service and in the browser."""
        self._body()
        self._answer(lambda: self.shop.erase(self._visit()), cookie="")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: addresses hold ids of items."""

    def _visit(self) -> str | None:
        found = SimpleCookie(self.headers.get("Cookie", "")).get("visit")
        return found.value if found and found.value else None

    def _body(self) -> dict[str, Any] | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_MAX:
            self.close_connection = True
            return None
        try:
            found = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _answer(self, make: Any, *, cookie: str | None = None) -> None:
        """Answers with JSON; an error of the service is passed on as the problem document that it is."""
        headers, status, content_type = {}, 200, "application/json"
        try:
            document = dict(make())
        except Problem as error:
            status, content_type = error.status, "application/problem+json"
            document = {"type": f"urn:gpt4rec:problem:{error.reason}", "title": error.title, "detail": error.detail}
            if error.retry_after_s is not None:
                headers["Retry-After"] = f"{error.retry_after_s:.0f}"
        except ClientError:
            status, content_type = 503, "application/problem+json"
            document = {"type": "urn:gpt4rec:problem:away", "title": "Away", "detail": "the service does not answer"}
        except (KeyError, TypeError, ValueError):
            status, document = 400, {}
        if cookie is not None:
            lasts = "; Max-Age=0" if cookie == "" else "; Max-Age=15552000"
            headers["Set-Cookie"] = f"visit={cookie}; Path=/; HttpOnly; SameSite=Lax{lasts}"
        self._send(status, json.dumps(document).encode(), content_type, headers)

    def _file(self, path: str) -> None:
        folder, name = (CLIENT, path.removeprefix("/client/")) if path.startswith("/client/") else (HERE, path[1:])
        file = folder / name
        if "/" in name or file.suffix not in TYPES or not file.is_file():
            self._send(HTTPStatus.NOT_FOUND, b"not here", "text/plain")
        else:
            self._send(200, file.read_bytes(), TYPES[file.suffix])

    def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        shown = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-cache"}
        policy = {
            "Content-Security-Policy": "default-src 'self'; img-src 'self' data:",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in {**shown, **policy, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def serve(client: Client, port: int) -> ThreadingHTTPServer:
    """Returns a started server, in threads of its own."""
    handler = type("ShopHandler", (Handler,), {"shop": Shop(client)})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Serves until it is stopped."""
    options = argparse.ArgumentParser(description="A shop of one page.")
    options.add_argument("--service", default="http://127.0.0.1:8000", help="address of the recommender")
    options.add_argument("--key", help="an API key that may erase users")
    options.add_argument("--port", type=int, default=8080)
    given = options.parse_args()
    if not (CLIENT / "index.js").is_file():
        options.error(f"the page's client is not built: run `npm ci && npm run build` in {CLIENT.parent}")
    # The page has the last good list itself, so that it is shown even where this backend is away.
    with Client(given.service, api_key=given.key, kept_lists=0) as client:
        server = serve(client, given.port)
        print(f"open http://127.0.0.1:{server.server_port}/", flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.shutdown()


if __name__ == "__main__":
    main()
