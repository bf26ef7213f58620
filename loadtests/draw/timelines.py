"""Plots of `docs/reliability.md`: which rung answered, second by second; how soon a change of the mode arrived."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.draw.plots import How
from loadtests.draw.reliability import RUNGS, toggle_s

Results = Mapping[str, Any]

COLORS = {"full": "#1f4e79", "narrow": "#6fa3cf", "item_cf": "#e0a458", "popular": "#b9b4a7"}
_BAD, _LINE = "#a4262c", "#333333"


def overload(axes: Any, found: Results) -> None:
    """Plots answers a second by rung, run after run."""
    seconds = [second for run in found["runs"] for second in run["each_second"]]
    _stack(axes, list(range(len(seconds))), [second["rungs"] for second in seconds])
    _runs(axes, found["runs"])
    axes.set_ylabel("answers/s")
    axes.legend(loc="upper left", fontsize=8)


def overload_model(axes: Any, found: Results) -> None:
    """Plots lists of the model a second, and 80 % of its rate at 1 ×."""
    counts = [_model(second) for run in found["runs"] for second in run["each_second"]]
    axes.step(range(len(counts)), counts, where="post", color=COLORS["full"], linewidth=0.8)
    alone = found["runs"][0]["model_rate"]
    axes.axhline(0.8 * alone, color=_BAD, linestyle="--", linewidth=1, label="80 % of what it gives at 1 ×")
    _runs(axes, found["runs"])
    axes.set_ylabel("lists of the model/s")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower left", fontsize=8)


def breach(axes: Any, found: Results, step_s: float) -> None:
    """Plots shares of the rungs over time, the share that the guard gave the model, and the moments of the fault."""
    steps = found["each_step"]
    shares = []
    for step in steps:
        total = max(1, sum(step["rungs"].values()))
        shares.append({rung: 100.0 * count / total for rung, count in step["rungs"].items()})
    _stack(axes, [n * step_s for n in range(len(steps))], shares)
    guard = [one for one in found["guard"] if one["model_share"] is not None]
    axes.step([one["at"] for one in guard], [100.0 * one["model_share"] for one in guard], where="post",
              color=_LINE, linestyle=":", linewidth=1.2, label="share the guard gives")  # fmt: skip
    for name, at in found["moments"].items():
        axes.axvline(at, color=_BAD, linewidth=1.2)
        axes.annotate(name, (at, 101), color=_BAD, fontsize=8, annotation_clip=False)
    axes.set_xlabel("seconds")
    axes.set_ylabel("% of the answers")
    axes.set_xlim(0, len(steps) * step_s)
    axes.set_ylim(0, 100)
    axes.legend(loc="center right", fontsize=8)


def toggle(axes: Any, found: Results) -> None:
    """Plots, over time, the share of trials in which both replicas follow the new mode."""
    for kind, text, color in (("sent", "by the message", COLORS["full"]), ("lost", "by the poll", COLORS["item_cf"])):
        trials = [one for one in found["trials"] if one["message"] == kind]
        reached = [1000.0 * s for s in toggle_s(trials) if math.isfinite(s)]
        shares = [100.0 * (n + 1) / len(trials) for n in range(len(reached))]
        axes.step([0.0, *reached], [0.0, *shares], where="post", color=color, label=text)
    axes.axvline(1000.0 * found["limit_s"], color=_BAD, linewidth=1.2)
    axes.set_xlabel("ms from the change")
    axes.set_ylabel("% of the trials")
    axes.set_ylim(0, 101)
    axes.legend(loc="lower right", fontsize=8)


def wanted(files: Mapping[str, Results | None]) -> dict[str, How]:
    """Returns the plots that can be drawn from the existing files: name → function of the axes."""
    found: dict[str, How] = {}
    if loaded := files.get("overload"):
        found["overload"] = lambda axes: overload(axes, loaded)
        found["overload_model"] = lambda axes: overload_model(axes, loaded)
    if breached := files.get("breach"):
        for name, one in breached["breaches"].items():
            plot = name.replace(" ", "_")
            found[plot] = lambda axes, one=one: breach(axes, one, breached["step_s"])  # type: ignore[misc]
    if toggled := files.get("toggle"):
        found["toggle"] = lambda axes: toggle(axes, toggled)
    return found


def _stack(axes: Any, xs: Sequence[float], counts: Sequence[Mapping[str, float]]) -> None:
    layers = {rung: [one.get(rung, 0) for one in counts] for rung in RUNGS}
    axes.stackplot(xs, *layers.values(), colors=[COLORS[rung] for rung in layers],
                   labels=[RUNGS[rung] for rung in layers], step="post")  # fmt: skip
    axes.set_xlim(xs[0], xs[-1])


def _runs(axes: Any, runs: Sequence[Results]) -> None:
    """Marks where one run ends and the next begins."""
    begins, at = [], 0
    for run in runs:
        begins.append(at)
        at += len(run["each_second"])
        axes.axvline(at, color=_LINE, linewidth=0.6)
    middles = [begin + len(run["each_second"]) / 2 for begin, run in zip(begins, runs, strict=True)]
    axes.set_xticks(middles, [f"{run['times']} ×, {len(run['each_second'])} s" for run in runs])


def _model(second: Results) -> int:
    return int(second["rungs"].get("full", 0) + second["rungs"].get("narrow", 0))
