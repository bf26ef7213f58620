"""Tables and plots of `docs/loop-figures.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.draw.plots import How
from loadtests.draw.tables import by_command, cell, markdown
from loadtests.loop import criteria

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


def wanted(files: Mapping[str, Any]) -> dict[str, How]:
    """Returns the plots that can be drawn: name → function of the axes."""
    found = files.get("loop_whole")
    if found is None:
        return {}
    return {"cycles": lambda axes: cycles(axes, found), "foretold": lambda axes: foretold(axes, found)}


def judged(rows: Sequence[Results], _: Mapping[str, Any]) -> str:
    """Draws every criterion that was written down, also those that nobody has measured, and counts them."""
    measured = {row["criterion"]: row for row in rows}
    limited = [name for name, limit in criteria.LIMITS.items() if limit]
    holding = sum(bool(measured[name]["holds"]) for name in limited if name in measured)
    missed = sum(name in measured for name in limited) - holding
    lead = (
        f"{len(limited)} criteria have a limit. Met: {holding}. Missed: {missed}. Not measured: "
        f"{len(limited) - holding - missed}."
    )
    lines = []
    for name, limit in criteria.LIMITS.items():
        row, asked = measured.get(name), criteria.row(name, 0.0, "", "").limit or "–"
        if row is None:
            lines.append([name, asked, "not measured", "–", "–"])
        else:
            verdict = "–" if not limit else "yes" if row["holds"] else "**missed**"
            lines.append([name, asked, f"{cell(row['value'])} {row['unit']}".rstrip(), verdict, row["date"]])
    table = markdown(["criterion", "asked", "figure", "met", "measured"], lines)
    commands = "\n".join(f"- `{command}`" for command in dict.fromkeys(row["command"] for row in rows))
    return f"{lead}\n\n{table}\n\nThe commands:\n\n{commands}"


def whole(found: Results) -> str:
    """Draws clicks per list of each cycle, and the arms of the experiment."""
    rows = [
        [one["cycle"], _rate(one["loop"]), _rate(one["hold-out"]), "yes" if one["promoted"] else "no"]
        for one in found["cycles"]
    ]
    parts = [
        markdown(["cycle", "clicks per list, users of the loop", "hold-out", "candidate promoted"], rows),
        f"Over the hold-out, last cycles: {_percent(found['lift'])}; first cycle: {_percent(found['at_first'])}.",
        markdown(
            ["arm", "predicted clicks per thousand lists", "measured", "difference", "always-valid p"],
            [_arm(name, one, found["p"][name]) for name, one in found["foretold"].items()],
        ),
        f"{found['made']:,} clicks of invalid traffic; the data of the last model hold {found['learned']} of them.",
    ]
    return "\n\n".join([*parts, by_command(found)])


def forgetting(found: Results) -> str:
    """Draws the forgetting table of each data set."""
    columns = ["method", "NDCG@10, old questions", "of scratch", "new questions", "of scratch", "s", "of scratch",
               "command, s", "of scratch", "choice of the strength, s"]  # fmt: skip
    parts = []
    for name, table in found["tables"].items():
        first = table["rows"][0]
        rows = [
            [row["method"], row["old_ndcg@10"], _share(row["old_of_scratch"]), row["new_ndcg@10"],
             _share(row["new_of_scratch"]), row["seconds"], _share(row["time_of_scratch"]), row["command_seconds"],
             _share(row["command_of_scratch"]), row["choice_seconds"] or None]
            for row in table["rows"]
        ]  # fmt: skip
        said = f"{name}: {first['old_questions']:,} old and {first['new_questions']:,} new questions."
        parts.append(f"{said}\n\n{markdown(columns, rows)}\n\n`{table['command']}`")
    return "\n\n".join(parts)


def kafka(found: Results) -> str:
    """Draws the stages from a user's action to the list that knows it."""
    rows = [
        [name, one["designed_ms"], *(one[part] for part in ("p50", "p99"))]
        for name, one in found["stages"].items()
    ]  # fmt: skip
    table = markdown(["stage", "designed, ms", "p50, ms", "p99, ms"], rows)
    said = (
        f"{found['rounds']} rounds of {found['seconds']:g} s. From a full topic: {found['throughput']:,.0f} events/s."
    )
    return f"{table}\n\n{said}\n\n{by_command(found)}"


def _rate(rate: Results) -> str:
    if rate["low"] is None:
        return f"{rate['value']:.3f}"
    return f"{rate['value']:.3f} ({rate['low']:.3f} … {rate['high']:.3f})"


def _percent(lift: Results) -> str:
    ends = "" if lift["low"] is None else f" ({lift['low']:+.0%} … {lift['high']:+.0%})"
    return f"{lift['value']:+.0%}{ends}"


def _arm(name: str, one: Results, p: float) -> list[Any]:
    if one["estimate"] is None:
        return [name, f"refused: {one['refused']}", _clicks(one["measured"]), None, round(p, 4)]
    difference = f"{one['difference']:+.0f} ({one['low']:+.0f} … {one['high']:+.0f})"
    return [name, _clicks(one["estimate"]), _clicks(one["measured"]), difference, round(p, 4)]


def _clicks(rate: Results) -> str:
    return f"{rate['value']:.0f} ({rate['low']:.0f} … {rate['high']:.0f})"


def _share(share: float) -> str:
    return f"{share:.1%}"


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "loop_whole": whole,
    "loop_forgetting": forgetting,
    "loop_kafka_stages": kafka,
}
SUMMARY = {"summary_judged": judged}
