"""`gpt4rec ops --space NAME`: which address each command calls."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.cli.ops import app


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    urls: list[str] = []

    def request(_method: str, url: str, **_: Any) -> httpx.Response:
        urls.append(url)
        return httpx.Response(200, json={"space": "shoes", "spaces": ["default", "shoes"]})

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.delenv("GPT4REC_OPS_SPACE", raising=False)
    return urls


def run(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--url", "http://shop/"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_command_calls_the_path_of_the_space(called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("spaces").split() == ["default", "shoes"]
    run("--space", "shoes", "spaces")
    run("--space", "a/b", "models", "list", "--json")
    monkeypatch.setenv("GPT4REC_OPS_SPACE", "books")
    run("spaces")
    assert called == [
        "http://shop/ops/spaces",
        "http://shop/spaces/shoes/ops/spaces",
        "http://shop/spaces/a%2Fb/ops/models",
        "http://shop/spaces/books/ops/spaces",
    ]
