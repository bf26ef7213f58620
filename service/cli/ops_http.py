"""The routes of operators as commands ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx


def experiment_path(name: str) -> str:
    """Returns the path of an experiment."""
    return f"/ops/experiments/{quote(name, safe='')}"


def activation_path(version: str) -> str:
    """Returns the path that makes a version that of everybody."""
    return f"/ops/models/{quote(version, safe='')}/activate"


def detail_of(answer: httpx.Response) -> str:
    """Returns what an error answer says."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return "this is not an answer of gpt4rec"
