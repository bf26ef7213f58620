"""Plots of `docs/loop.md`, from the figures of the whole loop on simulated users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.draw.plots import How

Results = Mapping[str, Any]
_SIDES = {"loop": ("#1f4e79", "users of the loop"), "hold-out": ("#b06a2c", "hold-out: the first model")}
_LINE = "#777777"


def cycles(axes: Any, found: Results) -> None:
    """Plots clicks per list of both sides by cycle, with intervals, and when tastes drift."""
    numbers = [one["cycle"] for one in found["cycles"]]
    for side, (color, label) in _SIDES.items():
        rates = [one[side] for one in found["cycles"]]
        values = [rate["value"] for rate in rates]
        halves = [0.0 if rate["low"] is None else rate["value"] - rate["low"] for rate in rates]
        axes.errorbar(numbers, values, yerr=halves, fmt="o-", capsize=2, color=color, label=label)
    axes.axvline(found["plan"]["cycles"] // 2 + 0.5, color=_LINE, linestyle="--", linewidth=1, label="tastes drift")
    axes.set_xticks(numbers)
    axes.set_xlabel("cycle")
    axes.set_ylabel("clicks per list")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def foretold(axes: Any, found: Results) -> None:
    """Plots what was foretold of each arm beside what it earned in the experiment, with intervals."""
    arms = {name: one for name, one in found["foretold"].items() if one["estimate"] is not None}
    for shift, part, color, label in (
        (-0.1, "estimate", "#b06a2c", "foretold"),
        (0.1, "measured", "#1f4e79", "earned"),
    ):
        rates = [one[part] for one in arms.values()]
        values = [rate["value"] for rate in rates]
        halves = [rate["value"] - rate["low"] for rate in rates]
        places = [place + shift for place in range(len(rates))]
        axes.errorbar(values, places, xerr=halves, fmt="o", capsize=3, color=color, label=label)
    axes.set_yticks(range(len(arms)), [f"arm {name}" for name in arms])
    axes.set_ylim(-0.5, len(arms) - 0.5)
    axes.set_xlabel("clicks per thousand lists")
    axes.legend(fontsize=8)


def wanted(found: Results | None) -> dict[str, How]:
    """Returns the plots that can be drawn: name → function of the axes."""
    if found is None:
        return {}
    return {"cycles": lambda axes: cycles(axes, found), "foretold": lambda axes: foretold(axes, found)}
