"""`gpt4rec ops`: what operators do with a running service, from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at a running service, and force its mode.")
fallback = typer.Typer(no_args_is_help=True, help="The mode: auto, fallback or model.")
policies = typer.Typer(no_args_is_help=True, help="The decoding policies.")
models = typer.Typer(no_args_is_help=True, help="The models: which there are, and which is served.")
app.add_typer(models, name="models")
app.add_typer(fallback, name="fallback")
app.add_typer(policies, name="policies")

Url = Annotated[str, typer.Option("--url", envvar="GPT4REC_OPS_URL", help="Where the service is.")]
Token = Annotated[str, typer.Option("--token", envvar="GPT4REC_OPS_TOKEN", help="An ops token.")]
Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept in the audit.")]
_LOCAL = "http://127.0.0.1:8000"
# A model is verified, opened and warmed up before the answer comes.
_ACTIVATE_S = 600.0
_FIGURES = ("recall@10", "ndcg@10")
_SAID_WITH_POLICIES = ("request_id", "origin", "actor", "reason", "changed_at", "version", "shared")
_QUANTILES = ("p50_ms", "p95_ms", "p99_ms")


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
def status(url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Shows what the console shows: traffic, latency, breaker, budgets, queue and mode."""
    answer = _call("GET", "/ops/status", url, token)
    if as_json:
        _show(answer, as_json)
        return
    _told(answer["mode"])
    for line in status_lines(answer):
        typer.echo(line)


@policies.command("set")
def set_policies(
    file: Annotated[
        Path, typer.Argument(help="The policies, as in service/policies/default.yaml.", exists=True, dir_okay=False)
    ],
    reason: Reason = None,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Decodes by the policies of a file on every replica. What `policies get --json` printed may be one."""
    import yaml

    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        _fail(f"{file} cannot be read as YAML ({type(error).__name__})")
    if not isinstance(said, dict):
        _fail(f"{file} holds no policies")
    # The service's answer says more than the file.
    body = {name: value for name, value in said.items() if name not in _SAID_WITH_POLICIES}
    if reason is not None:
        body["reason"] = reason
    _show(_told(_call("PUT", "/ops/policies", url, token, body), "these policies hold"), as_json)


@policies.command("reset")
def reset_policies(url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Every replica decodes by the policies of its own file again."""
    _show(_told(_call("DELETE", "/ops/policies", url, token), "the file's policies hold"), as_json)


@models.command("list")
def list_models(url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Shows the versions there are, which one is served, and what every replica serves."""
    _show_models(_call("GET", "/ops/models", url, token), as_json)


@models.command("activate")
def activate_model(
    version: Annotated[str, typer.Argument(help="As `models list` names it.")],
    reason: Reason = None,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Serves a version on every replica; where anything is wrong with it, the old one stays, and this fails."""
    path = f"/ops/models/{quote(version, safe='')}/activate"
    answer = _call("POST", path, url, token, {"reason": reason}, timeout_s=_ACTIVATE_S)
    _show_models(_told(answer, "this model is served"), as_json)


@models.command("rollback")
def rollback_model(reason: Reason = None, url: Url = _LOCAL, token: Token = "", as_json: Json = False) -> None:
    """Serves the version that was served before; again: the one it came from."""
    answer = _call("POST", "/ops/models/rollback", url, token, {"reason": reason}, timeout_s=_ACTIVATE_S)
    _show_models(_told(answer, "this model is served"), as_json)


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


def _call(
    method: str, path: str, url: str, token: str, body: dict[str, Any] | None = None, *, timeout_s: float = 10.0
) -> Any:
    """The service's answer; ends the program with 1 where there is none or it is a refusal."""
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.request(method, url.rstrip("/") + path, headers=headers, json=body, timeout=timeout_s)
    except httpx.HTTPError as error:
        return _fail(f"no answer from {url}: {type(error).__name__}")
    if answer.is_success:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "not an answer of gpt4rec"
    return _fail(f"{answer.status_code}: {detail}")


def _told(answer: Any, what: str = "this mode holds") -> Any:
    """Says it, where a change does not hold everywhere."""
    if not answer.get("shared", True):
        typer.echo(f"gpt4rec: Redis is away; {what} on one replica, and on the others when it is back", err=True)
    return answer


def _show_models(answer: Any, as_json: bool) -> None:
    if as_json:
        _show(answer, as_json)
        return
    for model in answer["models"]:
        sign = "*" if model["active"] else " "
        figures = "  ".join(f"{name} {model['metrics'][name]:.4f}" for name in _FIGURES if name in model["metrics"])
        typer.echo(f"{sign} {model['version']:40} {model['created_at'] or '':26} {model['fault'] or figures}")
    typer.echo(f"a rollback goes back to {answer['previous'] or 'nothing: no version was served before'}")
    for replica in answer["replicas"] or []:
        typer.echo(f"replica {replica['name']} serves {replica['active']}  {replica['fault'] or ''}".rstrip())


def _fail(message: str) -> NoReturn:
    typer.echo(f"gpt4rec: {message}", err=True)
    raise typer.Exit(1)


def _show(answer: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        if name != "request_id":
            typer.echo(f"{name:12} {value if isinstance(value, str) else json.dumps(value)}")


def status_lines(told: dict[str, Any]) -> list[str]:
    """The snapshot of /ops/status for a terminal, the most urgent first."""
    mode, breaker, service, traffic = told["mode"], told["breaker"], told["service"], told["traffic"]
    by = f" by {mode['actor']}: {mode['reason']}" if mode["actor"] else ""
    ends = f", {mode['expires_in_s']:.0f} s left" if mode["expires_in_s"] is not None else ""
    cause = f", {breaker['cause']}" if breaker["cause"] else ""
    rows = {
        "mode": f"{mode['mode']}{by}{ends}{'' if mode['shared'] else ' (not shared)'}",
        "breaker": f"{breaker['state']}, the model gets {breaker['model_share']:.0%}{cause}",
        "redis": "answers" if told["redis"] else "away",
        "model": f"{service['model_version']}{'' if service['engine'] else ' (engine stuck)'}",
        "workers": f"{service['workers_answering']} of {service['workers']} answer",
        "traffic": f"{traffic['answers_per_s']:g} answers/s over {traffic['window_s']} s, {traffic['late']} late, "
        f"{traffic['failed']} failed",
    }
    for source, figures in traffic["latency"].items():
        if figures["answers"]:
            ms = "  ".join(f"{name.removesuffix('_ms')} {figures[name]:.1f} ms" for name in _QUANTILES)
            rows[f"  {source}"] = f"{ms}  (budget {told['budget_ms']:g} ms)"
    for kind in ("rung", "reason"):
        rows[kind] = ", ".join(f"{name} {count}" for name, count in traffic[kind].items()) or "–"
    for objective, rates in told["burn_rate"].items():
        rows[f"burn {objective}"] = "  ".join(f"{window} {rate:g}" for window, rate in rates.items())
    queue, hits = told["queue"], traffic["cache"]["hit_share"]
    waiting = f"{queue['depth']:g} waiting, {queue['inflight']:g} under way"
    rows["queue"] = f"{waiting}, loop {queue['loop_lag_ms']:g} ms late"
    rows["cache hits"] = "–" if hits is None else f"{hits:.1%}"
    return [f"{name:14} {value}" for name, value in rows.items()]
