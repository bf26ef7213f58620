"""`gpt4rec ops items`: what is asked of the service, and what is said about its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import ops_items
from service.cli.ops import app

ITEM = {"item_id": "a/b", "item": {"title": "A", "price": 2.5}, "version": 7, "changed_at": "2026-01-01T00:00:00Z",
        "disabled": False, "listed": True, "placed_by": "like", "stored": {"title": "A"}, "warnings": []}  # fmt: skip
CHANGED = {"item_id": "a/b", "outcome": "updated", "version": 8, "disabled": True, "warnings": ["nothing places it"]}


class Asked:
    """Requests, and the answers that they get."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.answer: dict[str, Any] = CHANGED
        self.status = 200
        monkeypatch.setattr(httpx, "request", self._request)

    def _request(self, method: str, url: str, **more: Any) -> httpx.Response:
        self.requests.append((method, url.removeprefix("http://127.0.0.1:8000"), more.get("json", more.get("content"))))
        return httpx.Response(self.status, json=self.answer)

    def run(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["items", *words])
        return done.exit_code, done.output


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["put", "a/b", '{"price": 2}'], ("PUT", "/items/a%2Fb", {"price": 2})),
        (["patch", "a", '{"price": null}', "--if-version", "7"], ("PATCH", "/items/a?if_version=7", {"price": None})),
        (["disable", "a/similar"], ("POST", "/items/a%2Fsimilar/disable", None)),
        (["enable", "a"], ("POST", "/items/a/enable", None)),
        (["delete", "ä"], ("DELETE", "/items/%C3%A4", None)),
    ],
)
def test_changes_go_to_the_item(
    monkeypatch: pytest.MonkeyPatch, words: list[str], request_: tuple[str, str, Any]
) -> None:
    asked = Asked(monkeypatch)
    code, said = asked.run(*words)
    assert code == 0 and asked.requests == [request_]
    assert "a/b updated (version 8); it is disabled." in said and "nothing places it" in said


def test_items_are_shown_found_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    asked.answer = ITEM
    code, said = asked.run("get", "a/b")
    assert code == 0 and "a/b: listed; version 7" in said and "price: 2.5" in said and "placed by like" in said
    asked.answer = {"items": [ITEM], "cursor": "next", "warnings": []}
    assert asked.run("search", "a b")[0] == 0 and asked.requests[-1][1] == "/items?q=a+b&limit=20"
    code, said = asked.run("list", "--cursor", "x", "--limit", "3")
    assert asked.requests[-1][1] == "/items?limit=3&cursor=x" and "--cursor next" in said
    entry = {"at": "t", "actor": "alice", "action": "put", "item_id": "a", "fields": ["price"], "outcome": "created"}
    asked.answer = {"entries": [entry]}
    assert "alice" in asked.run("changes", "--item", "a")[1]
    assert asked.requests[-1][1] == "/ops/items/changes?limit=20&item_id=a"


def test_an_import_is_sent_in_parts_and_its_lines_keep_their_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ops_items, "LINES", 2)
    asked, file = Asked(monkeypatch), tmp_path / "items.jsonl"
    file.write_bytes(b'{"item_id": "a"}\n{"item_id": "b"}\n{"item_id": "c"}\n\n')
    line = {"line": 1, "item_id": "a", "outcome": "created", "version": 1, "error": None}
    asked.answer = {"lines": [line], "counts": {"created": 1}}
    assert asked.run("import", str(file)) == (0, "2 created\n")
    assert [body.count(b"item_id") for _, _, body in asked.requests] == [2, 1]
    asked.answer = {"lines": [{**line, "outcome": "refused", "error": "price: too low"}], "counts": {}}
    code, said = asked.run("import", str(file))
    assert code == 1 and "line 3 (a): refused: price: too low" in said
    assert asked.run("import", str(tmp_path / "none"))[0] == 1


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    assert asked.run("put", "a", "[1]")[0] == 2 and not asked.requests
    asked.status, asked.answer = 409, {"detail": "the item has the version 9"}
    code, said = asked.run("put", "a", "{}")
    assert code == 1 and "409: the item has the version 9" in said
