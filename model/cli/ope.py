"""`gpt4rec ope`: what other policies, or another model, would have earned on the traffic of a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model.cli.failures import failures
from model.cli.report import ClicksMax, From, ListsMax, LogUrl, Made, Until, Window, log_range
from service.cli.json_report import AsJson, JsonFile, check_target, to_stdout, write_report

if TYPE_CHECKING:
    from model.online.targets import Target

app = typer.Typer(add_completion=False)

_REWARDS = ("clicks", "carts", "conversions", "value", "dwell")


@app.command()
def ope(
    log: LogUrl,
    policies: Annotated[
        Path | None, typer.Option(help="Policies file whose segments decode the candidates of the log in other ways.")
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(help="Artefact whose model decodes the logged requests again; with --policies, in these ways."),
    ] = None,
    reward: Annotated[str, typer.Option(help="What counts: clicks, carts, conversions, value or dwell.")] = "clicks",
    from_: From = None,
    until: Until = None,
    window: Window = 30.0,
    clicks_max: ClicksMax = 60,
    made: Made = False,
    lists_max: ListsMax = 100_000,
    least_effective: Annotated[
        float, typer.Option(min=2, help="Smallest effective number of subjects that an estimate may rest on.")
    ] = 200.0,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Estimate what other policies would have earned on the logged traffic; exits with 1 where the log cannot say."""
    check_target(as_json, json_file)
    if reward not in _REWARDS:
        raise typer.BadParameter(f"{reward!r}: choose {', '.join(_REWARDS)}", param_hint="--reward")
    if policies is None and artifact is None:
        raise typer.BadParameter("say what is judged: give --policies, --artifact or both")
    with failures():
        from model.online.logged_lists import read_sample
        from model.online.off_policy import judge

        span = replace(log_range(log, from_, until, window, clicks_max), histories=artifact is not None)
        sample = read_sample(span, reward, lists_max=lists_max, made=made)  # type: ignore[arg-type]  # checked above
        found = judge(sample, _target(policies, artifact), least_effective=least_effective)
    report = {"log": log, "reward": reward, **found}
    write_report(report, as_json, json_file)
    if not to_stdout(as_json, json_file):
        _show(report)
    if found["refused"]:
        raise typer.Exit(1)


def _target(policies: Path | None, artifact: Path | None) -> Target:
    from model.online.targets import PoliciesTarget
    from service.policies.policies import load

    chosen = None if policies is None else load(policies)
    if artifact is None:
        assert chosen is not None  # noqa: S101 - one of the two, checked above
        return PoliciesTarget(chosen, str(policies))
    from model.evaluation.artifact_target import ArtifactTarget
    from service.engine.factory import open_engine

    name = str(artifact) if policies is None else f"{artifact} with {policies}"
    return ArtifactTarget(open_engine(artifact), name, chosen)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"{found['lists']:,} lists of {found['subjects']:,} subjects, {found['drawn']:,} drawn; {found['reward']} per "
        "thousand lists",
        highlight=False,
    )
    for row in found["segments"]:
        if row["refused"]:
            console.print(f"refused: {row['refused']}", highlight=False, markup=False, soft_wrap=True)
    if found["refused"]:
        return
    table = Table(title=f"{found['target']}, and what was logged", title_justify="left")
    for name in ("estimate", found["reward"], "lift"):
        table.add_column(name, justify="left" if name == "estimate" else "right")
    table.add_row("logged", _interval(found["logged"]), "")
    for name, value in found["estimates"].items():
        table.add_row(name, _interval(value), _interval(found["lift"][name]))
    console.print(table)


def _interval(value: dict[str, float | None]) -> str:
    middle, low, high = value["value"], value["low"], value["high"]
    return f"{middle:.4g}" if low is None or high is None else f"{middle:.4g} ({low:.4g}…{high:.4g})"
