"""Calls of a running service by the commands of `gpt4rec ops`, and how answers are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from service.cli.messages import complain
from service.cli.ops_http import detail_of

Url = Annotated[str, typer.Option("--url", envvar="GPT4REC_OPS_URL", help="URL of the service.")]
Token = Annotated[str, typer.Option("--token", envvar="GPT4REC_OPS_TOKEN", help="An ops token.")]
# The space that the command means, which is named before the command.
_SPACE: ContextVar[str] = ContextVar("space", default="")
LOCAL = "http://127.0.0.1:8000"


def choose_space(space: str) -> None:
    """Notes the space that the command means; "" for the one of the token, or the default one."""
    _SPACE.set(space)


def _below() -> str:
    """Returns the path of the space. A service without spaces has none there, and refuses the call."""
    space = _SPACE.get()
    return f"/spaces/{quote(space, safe='')}" if space else ""


def call(
    method: str, path: str, url: str, token: str, body: dict[str, Any] | bytes | None = None, *, timeout_s: float = 10.0
) -> Any:
    """Returns the answer of the service; exits with 1 if there is none, or if it is an error.

    Args:
        method: Of the request.
        path: Of the request, with its query.
        url: Of the service.
        token: An ops token; "" for none.
        body: A JSON object, or the bytes to send.
        timeout_s: Longest wait.
    """
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    try:
        answer = httpx.request(method, url.rstrip("/") + _below() + path, headers=headers, timeout=timeout_s, **sent)
    except httpx.HTTPError as error:
        return fail(f"no answer from {url}: {type(error).__name__}")
    if answer.is_success:
        return answer.json()
    return fail(f"{answer.status_code}: {detail_of(answer)}")


def fail(message: str) -> NoReturn:
    """Says what went wrong, and exits with 1."""
    complain(message)
    raise typer.Exit(1)


def show(answer: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """Prints an answer: one JSON object, or the lines that put it in words."""
    typer.echo(json.dumps(answer) if as_json else "\n".join(lines(answer)))
