"""Plots as SVG, among them those of `docs/performance.md`.

The same figures give the same bytes: no date, no random ids.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]
# Draws one plot into its axes.
How = Callable[[Any], None]
_INK, _SOFT = "#1f4e79", "#b06a2c"


def peers(axes: Any, found: Results) -> None:
    """Plots requests a second of each system."""
    systems = sorted((one for one in found["systems"] if one["rps"] > 0), key=lambda one: one["rps"])
    names = [f"{one['name']}, {one['variant']}" for one in systems]
    axes.barh(names, [one["rps"] for one in systems], color=_INK)
    axes.set_xscale("log")
    axes.set_xlabel("requests/s at p99 ≤ 50 ms")


def curve(axes: Any, points: Sequence[Mapping[str, Any]], axis: str, label: str) -> None:
    """Plots p50 and p99 over one axis."""
    xs = [point[axis] for point in points]
    axes.plot(xs, [point["ms"]["p50"] for point in points], "o-", color=_INK, label="p50")
    axes.plot(xs, [point["ms"]["p99"] for point in points], "o--", color=_SOFT, label="p99")
    axes.set_xlabel(label)
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def batch(axes: Any, points: Sequence[Mapping[str, Any]]) -> None:
    """Plots the time of a row over the rows of a batch."""
    xs = [point["batch"] for point in points]
    axes.plot(xs, [point["decode_ms_a_row"] for point in points], "o-", color=_INK, label="decode, W 64")
    axes.plot(xs, [point["encode_ms_a_row"] for point in points], "o--", color=_SOFT, label="encode of one event")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("rows of a batch")
    axes.set_ylabel("ms a row")
    axes.set_ylim(bottom=0)
    axes.legend()


def memory(axes: Any, found: Results) -> None:
    """Plots resident memory over time."""
    samples = found["resident_mib"]
    axes.plot([n * found["sample_s"] / 60.0 for n in range(len(samples))], samples, color=_INK)
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MiB")
    axes.set_ylim(bottom=0)


def latencies(axes: Any, found: Results) -> None:
    """Plots latency by percentile, from the HDR histograms."""
    from hdrh.histogram import HdrHistogram

    for (route, latency), color in zip(found["run"]["routes"].items(), (_SOFT, _INK), strict=False):
        histogram = HdrHistogram.decode(latency["hdr"])
        nines = [n / 20 for n in range(61)]
        ms = [histogram.get_value_at_percentile(100 - 100 / 10**n) / 1000.0 for n in nines]
        axes.plot(nines, ms, color=color, label=route)
    axes.set_xticks([0, 1, 2, 3], ["min", "90 %", "99 %", "99.9 %"])
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def scale(axes: Any, found: Results) -> None:
    """Plots decoding over the size of the catalogue, and its graph with and without the constraint."""
    sizes = list(found["decode_ms"])
    xs = [int(size) for size in sizes]
    axes.plot(xs, [found["decode_ms"][size]["p50"] for size in sizes], "o-", color=_INK, label="decode p50")
    constraint = found["constraint_ms"]
    for way, style in zip(constraint[sizes[0]], ("o--", "o:", "o-."), strict=False):
        label = f"graph, constraint {way}"
        axes.plot(xs, [constraint[size][way]["p50"] for size in sizes], style, color=_SOFT, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("items")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def cells(axes: Any, found: Results) -> None:
    """Plots the recall of the exhaustive top ten over the time of a list, by the size of the catalogue."""
    for (size, one), style in zip(found["sizes"].items(), ("o:", "o--", "o-"), strict=False):
        points = list(one["points"].values())
        xs, ys = ([point[name]["everything"] for point in points] for name in ("ratio", "recall"))
        axes.plot(xs, ys, style, color=_INK if style == "o-" else _SOFT, label=f"{int(size):,} items")
    axes.axhline(0.99, color=_SOFT, linewidth=0.6)
    axes.set_xlabel("time of a list ÷ that of the beam alone")
    axes.set_ylabel("recall of the exhaustive top ten")
    axes.set_ylim(0, 1.02)
    axes.legend()


def wanted(files: Mapping[str, Results | None]) -> dict[str, How]:
    """Returns the plots that can be drawn from the existing files: name → function of the axes."""
    found: dict[str, How] = {}
    if (compared := files.get("peers")) and compared["systems"]:
        found["peers"] = lambda axes: peers(axes, compared)
    if scaled := files.get("scale"):
        found["scale"] = lambda axes: scale(axes, scaled)
    if by_cell := files.get("cells"):
        found["cells"] = lambda axes: cells(axes, by_cell)
    if drawn := files.get("curves"):
        points = drawn["curves"]
        labels = {"history": ("events", "events of the history"), "k": ("k", "k"), "beam": ("beam_width", "beam width"),
                  "concurrency": ("concurrency", "requests at once")}  # fmt: skip
        for name, (axis, label) in labels.items():
            if name in points:
                found[name] = lambda axes, name=name, axis=axis, label=label: curve(axes, points[name], axis, label)  # type: ignore[misc]
        if "batch" in points:
            found["batch"] = lambda axes: batch(axes, points["batch"])
    if soaked := files.get("soak"):
        found["soak"] = lambda axes: latencies(axes, soaked)
        found["memory"] = lambda axes: memory(axes, soaked)
    return found


def draw(plots: Mapping[str, How], folder: Path) -> list[Path]:
    """Writes `<name>.svg` for every plot and removes all other SVGs of the folder. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with (
        mpl.rc_context({"svg.hashsalt": "gpt4rec", "svg.fonttype": "none", "font.size": 9}),
        warnings.catch_warnings(action="error", category=UserWarning),  # a plot that does not fit is no plot
    ):
        for name, how in plots.items():
            figure = Figure(figsize=(6.4, 3.4), layout="constrained")
            how(figure.subplots())
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            written.append(folder / f"{name}.svg")
    for old in set(folder.glob("*.svg")) - set(written):
        old.unlink()
    return written
