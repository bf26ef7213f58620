"""`gpt4rec ops`: what operators do with a running service, from a shell."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at a running service, and force its mode.")
fallback = typer.Typer(no_args_is_help=True, help="The mode: auto, fallback or model.")
policies = typer.Typer(no_args_is_help=True, help="The decoding policies.")
app.add_typer(fallback, name="fallback")
app.add_typer(policies, name="policies")

Url = Annotated[str, typer.Option("--url", envvar="GPT4REC_OPS_URL", help="Where the service is.")]
Token = Annotated[str, typer.Option("--token", envvar="GPT4REC_OPS_TOKEN", help="An ops token.")]
Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")]
_LOCAL = "http://127.0.0.1:8000"


@fallback.command("get")
def get_fallback(url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Shows the mode in force, the breaker and the budgets."""
    _show(_told(_call("GET", "/ops/fallback", url, token)), as_json)


@fallback.command("set")
def set_fallback(
    mode: Annotated[str, typer.Argument(help="auto, fallback or model.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")],
    expires_in_s: Annotated[float | None, typer.Option(help="Back to auto after so long.")] = None,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Forces a mode on every replica, or gives the choice back with `auto`."""
    if mode not in ("auto", "fallback", "model"):
        raise typer.BadParameter("the mode is auto, fallback or model")
    body = {"mode": mode, "reason": reason, "expires_in_s": expires_in_s}
    _show(_told(_call("PUT", "/ops/fallback", url, token, body)), as_json)


@policies.command("get")
def get_policies(url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Shows the decoding policies in force."""
    _show(_call("GET", "/ops/policies", url, token), as_json)


@app.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most entries shown.")] = 20,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Shows who changed what, when and why; newest first."""
    answer = _call("GET", f"/ops/audit?limit={limit}", url, token)
    if as_json:
        _show(answer, as_json)
        return
    for entry in answer["entries"]:
        rest = {k: v for k, v in entry.items() if k not in ("id", "at", "actor", "action") and v is not None}
        typer.echo(f"{entry['at']}  {entry['actor']}  {entry['action']}  {json.dumps(rest)}")


def _call(method: str, path: str, url: str, token: str, body: dict[str, Any] | None = None) -> Any:
    """The service's answer; ends the program with 1 where there is none or it is a refusal."""
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.request(method, url.rstrip("/") + path, headers=headers, json=body, timeout=10.0)
    except httpx.HTTPError as error:
        return _fail(f"no answer from {url}: {type(error).__name__}")
    if answer.is_success:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "not an answer of gpt4rec"
    return _fail(f"{answer.status_code}: {detail}")


def _told(answer: Any) -> Any:
    """Says it, where the mode does not hold everywhere."""
    if not answer.get("shared", True):
        typer.echo(
            "gpt4rec: Redis is away; this mode holds on one replica, and on the others when it is back", err=True
        )
    return answer


def _fail(message: str) -> None:
    typer.echo(f"gpt4rec: {message}", err=True)
    raise typer.Exit(1)


def _show(answer: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        if name != "request_id":
            typer.echo(f"{name:12} {value if isinstance(value, str) else json.dumps(value)}")
