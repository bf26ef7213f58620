"""`gpt4rec ops`: operating a running service from a shell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.cli.experiment_text import experiment_lines, experiments_lines, planned_lines
from service.cli.json_report import AsJson
from service.cli.messages import complain
from service.cli.ops_call import LOCAL as _LOCAL
from service.cli.ops_call import Token, Url, choose_space
from service.cli.ops_call import call as _call
from service.cli.ops_call import fail as _fail
from service.cli.ops_call import show as _show
from service.cli.ops_http import activation_path, experiment_path
from service.cli.ops_items import app as items
from service.cli.ops_text import (
    POLICIES_ANSWER_FIELDS,
    audit_lines,
    fallback_lines,
    models_lines,
    policies_lines,
    preview_lines,
    status_lines,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Inspect and control a running service.")
fallback = typer.Typer(no_args_is_help=True, help="The mode: auto, fallback or model.")
policies = typer.Typer(no_args_is_help=True, help="The decoding policies.")
experiment = typer.Typer(no_args_is_help=True, help="Experiments: list, show, start, watch, stop, promote.")
models = typer.Typer(no_args_is_help=True, help="The models: list, activate, roll back.")
app.add_typer(models, name="models")
app.add_typer(experiment, name="experiment")
app.add_typer(fallback, name="fallback")
app.add_typer(policies, name="policies")
app.add_typer(items, name="items")

Reason = Annotated[str | None, typer.Option("--reason", help="The reason; kept in the audit.")]
Name = Annotated[str, typer.Argument(help="Name of the experiment.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")]
_DRY_RUN = "?dry_run=true"
# A model is verified, opened and warmed up before the answer comes.
_ACTIVATE_S = 600.0


@app.callback()
def in_space(
    space: Annotated[
        str,
        typer.Option(envvar="GPT4REC_OPS_SPACE", help="Name of the space; without it that of the token, or default."),
    ] = "",
) -> None:
    """Notes the space that the command means."""
    choose_space(space)


@app.command()
def spaces(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Lists the spaces that the token may operate."""
    _show(_call("GET", "/ops/spaces", url, token), as_json, lambda answer: answer["spaces"])


@fallback.command("get")
def get_fallback(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Shows the mode in force, the breaker and the budgets."""
    _show(_warned(_call("GET", "/ops/fallback", url, token)), as_json, fallback_lines)


@fallback.command("set")
def set_fallback(
    mode: Annotated[str, typer.Argument(help="auto, fallback or model.")],
    reason: Annotated[str, typer.Option(help="The reason; kept in the audit.")],
    expires_in_s: Annotated[float | None, typer.Option(help="Seconds after which the mode is auto again.")] = None,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Forces a mode on every replica; `auto` lets the service choose again."""
    if mode not in ("auto", "fallback", "model"):
        raise typer.BadParameter("the mode must be auto, fallback or model")
    body = {"mode": mode, "reason": reason, "expires_in_s": expires_in_s}
    _show(_warned(_call("PUT", "/ops/fallback", url, token, body)), as_json, fallback_lines)


@policies.command("get")
def get_policies(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Shows the decoding policies in force."""
    _show(_call("GET", "/ops/policies", url, token), as_json, policies_lines)


@app.command()
def status(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Shows the figures of the console: traffic, latency, breaker, budgets, queue and mode."""
    answer = _call("GET", "/ops/status", url, token)
    _warned(answer["mode"])
    _show(answer, as_json, status_lines)


@policies.command("set")
def set_policies(
    file: Annotated[
        Path,
        typer.Argument(help="The policies, written as in service/policies/default.yaml.", exists=True, dir_okay=False),
    ],
    reason: Reason = None,
    dry_run: DryRun = False,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Sets the policies of a file on every replica. The output of `policies get --json` is such a file.

    With --dry-run it says what would change on the requests that the replica answered last.
    """
    content = _yaml(file, "policies")
    body = {name: value for name, value in content.items() if name not in POLICIES_ANSWER_FIELDS}
    if reason is not None:
        body["reason"] = reason
    if dry_run:
        _show(_call("PUT", f"/ops/policies{_DRY_RUN}", url, token, body), as_json, preview_lines)
        return
    _show(_warned(_call("PUT", "/ops/policies", url, token, body), "these policies apply"), as_json, policies_lines)


@policies.command("reset")
def reset_policies(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Returns every replica to the policies of its own file."""
    _show(
        _warned(_call("DELETE", "/ops/policies", url, token), "the policies of the file apply"), as_json, policies_lines
    )


@models.command("list")
def list_models(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Lists the versions, and shows which of them is served here and on every replica."""
    _show(_call("GET", "/ops/models", url, token), as_json, models_lines)


@models.command("activate")
def activate_model(
    version: Annotated[str, typer.Argument(help="The version, as in `models list`.")],
    reason: Reason = None,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Activates a version on every replica. If anything is wrong with it, the old one stays and the command fails."""
    answer = _call("POST", activation_path(version), url, token, {"reason": reason}, timeout_s=_ACTIVATE_S)
    _show(_warned(answer, "this model is served"), as_json, models_lines)


@models.command("rollback")
def rollback_model(reason: Reason = None, url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Activates the previous version. Each further rollback goes one version further back."""
    answer = _call("POST", "/ops/models/rollback", url, token, {"reason": reason}, timeout_s=_ACTIVATE_S)
    _show(_warned(answer, "this model is served"), as_json, models_lines)


@experiment.command("list")
def list_experiments(url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Lists the experiments, the hold-out, and the models that are held for them."""
    _show(_call("GET", "/ops/experiments", url, token), as_json, experiments_lines)


@experiment.command("show")
def show_experiment(name: Name, url: Url = _LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Shows what an experiment has found so far. It may be looked at as often as you like."""
    _show(_call("GET", experiment_path(name), url, token), as_json, experiment_lines)


@experiment.command("watch")
def watch_experiment(
    name: Name,
    every_s: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 30.0,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Shows the report again and again, until the experiment has ended."""
    while True:
        answer = _call("GET", experiment_path(name), url, token)
        _show(answer, as_json, experiment_lines)
        if answer["state"] != "running":
            return
        time.sleep(every_s)


@experiment.command("start")
def start_experiment(
    file: Annotated[
        Path, typer.Argument(help="The experiment as YAML: see docs/loop.md.", exists=True, dir_okay=False)
    ],
    reason: Reason = None,
    dry_run: DryRun = False,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Starts an experiment on every replica."""
    body = _yaml(file, "experiment")
    if reason is not None:
        body["reason"] = reason
    if dry_run:
        _show(_call("POST", f"/ops/experiments{_DRY_RUN}", url, token, body), as_json, planned_lines)
        return
    _show(_call("POST", "/ops/experiments", url, token, body, timeout_s=_ACTIVATE_S), as_json, experiment_lines)


@experiment.command("stop")
def stop_experiment(
    name: Name,
    reason: Reason = None,
    dry_run: DryRun = False,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Stops an experiment: its subjects are answered as everybody is."""
    path = f"{experiment_path(name)}/stop{_DRY_RUN if dry_run else ''}"
    answer = _call("POST", path, url, token, {"reason": reason})
    _show(answer, as_json, planned_lines if dry_run else experiment_lines)


@experiment.command("promote")
def promote_arm(
    name: Name,
    arm: Annotated[str, typer.Argument(help="The arm that everybody gets.")],
    reason: Reason = None,
    dry_run: DryRun = False,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Gives everybody the model and the policies of an arm, and ends the experiment."""
    body, path = {"arm": arm, "reason": reason}, f"{experiment_path(name)}/promote"
    if dry_run:
        _show(_call("POST", f"{path}{_DRY_RUN}", url, token, body), as_json, planned_lines)
        return
    _show(_call("POST", path, url, token, body, timeout_s=_ACTIVATE_S), as_json, experiment_lines)


@experiment.command("holdout")
def set_holdout(
    share: Annotated[float, typer.Argument(min=0.0, max=0.5, help="Share of all subjects; 0 ends the hold-out.")],
    model: Annotated[str | None, typer.Option(help="The version that answers them.")] = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Holds a share of the subjects out of all experiments and of every later model."""
    if share and model is None:
        raise typer.BadParameter("--model names the version that answers them")
    if not share:
        path = f"/ops/holdout?dry_run={str(dry_run).lower()}" + (f"&reason={quote(reason, safe='')}" if reason else "")
        answer = _call("DELETE", path, url, token)
    else:
        body, path = {"share": share, "model": model, "reason": reason}, f"/ops/holdout{_DRY_RUN if dry_run else ''}"
        answer = _call("PUT", path, url, token, body, timeout_s=_ACTIVATE_S)
    if dry_run:
        _show(answer, as_json, planned_lines)
        return
    _show(_warned(answer, "this hold-out applies"), as_json, experiments_lines)


@app.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most entries to show.")] = 20,
    url: Url = _LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Lists who changed what, when and why; newest first."""
    answer = _call("GET", f"/ops/audit?limit={limit}", url, token)
    _show(answer, as_json, lambda told: audit_lines(told["entries"]))


def _yaml(file: Path, what: str) -> dict[str, Any]:
    """Returns the content of a YAML file; exits with 1 if it is none."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        _fail(f"{file} cannot be read as YAML ({type(error).__name__})")
    if not isinstance(content, dict):
        _fail(f"{file} contains no {what}")
    return content


def _warned(answer: Any, what: str = "this mode applies") -> Any:
    """Returns the answer; warns first if its change is not shared yet."""
    if not answer.get("shared", True):
        complain(f"Redis is unavailable; {what} on one replica only, and on the others once Redis is back")
    return answer
