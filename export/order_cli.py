"""`gpt4rec order`: learns the order of lists from what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model.cli.failures import failures
from model.cli.report import ClicksMax, From, ListsMax, LogUrl, Made, Until, Window, log_range
from service.cli.json_report import AsJson, JsonFile, check_target, to_stdout, write_report

app = typer.Typer(add_completion=False, no_args_is_help=True)

_REWARDS = ("clicks", "dwell", "both")
_METHODS = ("expected_reward", "policy")


@app.callback()
def order() -> None:
    """Learn the order of lists from what was shown."""


@app.command()
def learn(
    log: LogUrl,
    artifact: Annotated[Path, typer.Option(help="Artefact whose lists the log has, or a folder of artefacts.")],
    out: Annotated[Path, typer.Option(help="Folder of artefacts; the one with the order is published there.")],
    reward: Annotated[str, typer.Option(help="What counts: clicks, their dwell, or both.")] = "clicks",
    method: Annotated[
        str, typer.Option(help="expected_reward (a model of looks and clicks) or policy (a policy gradient).")
    ] = "expected_reward",
    language_model: Annotated[
        Path | None, typer.Option(help="Folder of a GPT-2, whose view of an order of titles is one more term.")
    ] = None,
    first: Annotated[int, typer.Option(min=2, max=20, help="How many items from the top are put into order.")] = 10,
    from_: From = None,
    until: Until = None,
    window: Window = 30.0,
    clicks_max: ClicksMax = 60,
    made: Made = False,
    lists_max: ListsMax = 100_000,
    least_effective: Annotated[
        float, typer.Option(min=2, help="Smallest effective number of subjects that the decision may rest on.")
    ] = 200.0,
    latest: Annotated[
        bool, typer.Option("--latest", help="Let a service that is started on --out serve it from now on.")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option(help="Private key that signs the artefact, made by `gpt4rec sign key`.")
    ] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Learn an order, and publish an artefact with it only if it earns more by more than chance.

    Exits with 1 where the log cannot say.
    """
    check_target(as_json, json_file)
    if reward not in _REWARDS:
        raise typer.BadParameter(f"{reward!r}: choose {', '.join(_REWARDS)}", param_hint="--reward")
    if method not in _METHODS:
        raise typer.BadParameter(f"{method!r}: choose {', '.join(_METHODS)}", param_hint="--method")
    with failures():
        from export.order import versions_of, with_order
        from export.signing import signer
        from model.slate.deciding import by_expected_reward, decide, read
        from model.slate.language_model import LanguageModel
        from model.slate.learning import Items
        from model.slate.order_prior import with_prior
        from model.slate.policy_gradient import learn_policy
        from service.artifact.artifact import Artifact

        signs, opened = signer(sign), Artifact.open(artifact)
        items = Items.of(opened.catalogue)
        if language_model is not None:
            items = with_prior(items, opened.catalogue, LanguageModel(language_model))
        span = log_range(log, from_, until, window, clicks_max)
        lists = read(span, reward, versions_of(opened), lists_max=lists_max, made=made)  # type: ignore[arg-type]
        decision = decide(
            lists,
            items,
            reward,  # type: ignore[arg-type]  # checked above
            first=first,
            least_effective=least_effective,
            learner=learn_policy if method == "policy" else by_expected_reward,
        )
        report = _report(decision, lists.other_models)
        about = {name: report[name] for name in ("lists", "lift")} | {"reward": reward, "method": method}
        folder = None
        if decision.better:
            folder = with_order(opened, decision.learned.weights, out, about, latest=latest, sign=signs)
    report |= {"log": log, "reward": reward, "method": method, "artifact": None if folder is None else str(folder)}
    write_report(report, as_json, json_file)
    if not to_stdout(as_json, json_file):
        _show(report)
    if report["refused"]:
        raise typer.Exit(1)


def _report(decision: Any, other_models: int) -> dict[str, Any]:
    """What was learned and decided, as JSON can hold it."""
    learned, compared = decision.learned, decision.report
    bias, weights = learned.bias, learned.weights
    return {
        "better": decision.better,
        "refused": compared["refused"],
        "lift": compared["lift"],
        "estimates": compared["estimates"],
        "base_estimates": compared["base_estimates"],
        "per_lists": compared["per_lists"],
        "subjects": compared["subjects"],
        "lists": learned.lists,
        "lists_of_other_models": other_models,
        "left_out": compared["left_out"],
        "examination": bias.examination.tolist(),
        "examination_error": bias.error.tolist(),
        "leave": weights.leave,
        "weights": dict(weights.weights),
        "item_spread": learned.clicks.spread,
    }


def _show(report: dict[str, Any]) -> None:
    console = Console()
    looks = ", ".join(f"{one:.2f}" for one in report["examination"])
    lines = [
        f"{report['lists']:,} drawn lists of {report['subjects']:,} subjects; looks by position: {looks}",
        f"a click ends the visit with a probability of {report['leave']:.2f}",
    ]
    if report["refused"]:
        lines.append(f"refused: {report['refused']}")
    else:
        lift = report["lift"]["dr"]
        lines.append(
            f"{report['reward']} per thousand lists, beside lists by score: {lift['value']:+.4g} "
            f"({lift['low']:+.4g}…{lift['high']:+.4g})"
            if lift["low"] is not None
            else f"{report['reward']} per thousand lists, beside lists by score: {lift['value']:+.4g}"
        )
    lines.append(
        f"published {report['artifact']}"
        if report["artifact"]
        else "not better by more than chance: no artefact was written, and lists stay by score"
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
