"""What the demo prints, on a terminal of 80 columns and without one."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.demo import answer_table, invite
from deploy.demo_service import Service

TITLE = "Monty Python's Life of Brian, a very long title of a film that nobody could ever print in one line"
ANSWER: dict[str, Any] = {
    "segment": "conservative", "strategy": "temperature", "source": "gpt4rec", "reason": None, "rung": "full",
    "latency_ms": 12.3, "items": [{"title": TITLE, "score": -10.25 - n} for n in range(5)],
}  # fmt: skip


BECAUSE = {
    "contributions": {"path": 0.5, "item_cf": 2.0},
    "event": {"item_id": "7", "title": "Alien", "by": "item_cf", "share": 0.5, "exact": True, "timestamp_ms": 1},
}


def printed(width: int, show: Callable[[Console], None], *, terminal: bool) -> str:
    file = io.StringIO()
    show(Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 80])
def test_every_command_can_be_copied(tmp_path: Path, width: int, terminal: bool) -> None:
    service = Service(tmp_path, tmp_path, 0)
    service.url, service.token = "http://127.0.0.1:54321", "t" * 22
    shown = printed(width, lambda console: invite(console, service, 1.0), terminal=terminal)
    lines = shown[shown.index("  recommend") :].splitlines()
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert list(said) == ["recommend", "console", "metrics", "API", "fallback"]
    command = shlex.split(said["recommend"])
    assert command[:3] == ["curl", "-s", "http://127.0.0.1:54321/recommend"]
    assert json.loads(command[command.index("-d") + 1]) == {"user_id": "demo-new", "k": 5}
    assert shlex.split(said["fallback"])[-4:] == ["--reason", "trying it", "--url", service.url]


def test_the_reason_is_beside_each_item() -> None:
    items = [
        {"title": "A", "score": 1.0, "because": BECAUSE},
        {"title": "B", "score": 0.5, "because": BECAUSE | {"event": None}},
        {"title": "C", "score": 0.0, "because": {"contributions": {}, "event": None}},
    ]
    shown = printed(120, lambda console: console.print(answer_table(ANSWER | {"items": items}, ["x"])), terminal=False)
    a, b, c = (next(line for line in shown.splitlines() if f" {title} " in line) for title in "ABC")
    assert "Alien (item_cf)" in a and " item_cf " in b and "item_cf" not in c


@pytest.mark.parametrize("width", [60, 80, 200])
def test_scores_are_never_cut(width: int) -> None:
    shown = printed(width, lambda console: console.print(answer_table(ANSWER, [TITLE] * 7)), terminal=False)
    for item in ANSWER["items"]:
        assert f"{item['score']:.2f}" in shown
    assert max(map(len, shown.splitlines())) <= width
