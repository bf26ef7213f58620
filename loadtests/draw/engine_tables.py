"""Sections of `docs/performance.md` on the limit: two commits, batches, the GPU. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtests.draw.tables import by_command, cell, markdown, middle, value_range

Results = Mapping[str, Any]


def engine_before(found: Results) -> str:
    """Says where the figures of before come from."""
    dates = sorted({row["date"] for row in found["rows"]})
    return f"The figures of before were measured on {' and '.join(dates)}, by the commands of the table above."


def before_after(found: Results) -> str:
    """Draws what a list cost before and costs now, by the kinds of measurement that were made."""
    made = []
    if cpu_of := found.get("cpu"):
        sides = {name: [pair[name]["cpu_us"] for pair in cpu_of["pairs"]] for name in ("before", "after")}
        low, high = cpu_of["interval"]
        rows = [[name, middle(values), value_range(values)] for name, values in sides.items()]
        made += [
            markdown(["µs of processor time a list", "median of the blocks", "range"], rows),
            f"After ÷ before: {cell(cpu_of['ratio'])}, 95 % interval {cell(low)} to {cell(high)}, "
            f"{len(cpu_of['pairs'])} pairs of blocks.",
        ]
    if rates := found.get("rates"):
        rows = [
            [f"round {number}", one["before"]["rate"], one["after"]["rate"]]
            for number, one in enumerate(rates["rounds"], 1)
        ]
        made += [
            markdown(["lists/s at p99 ≤ 50 ms", "before", "after"], rows),
            f"After ÷ before, median of the rounds: {cell(rates['ratio'])}.",
        ]
    if places := found.get("places"):
        rows = [[kind, one["places"], one["same"]] for kind, one in places.items()]
        made.append(markdown(["request", "places compared", "same item"], rows))
    return "\n\n".join([*made, by_command(found)])


def cells(found: Results) -> str:
    """Draws recall and time of candidates by cell, by the size of the catalogue and the items that are read."""
    parts = []
    for size, one in found["sizes"].items():
        filters = list(next(iter(one["points"].values()))["recall"])
        heads = ["items read", *(f"recall, {name}" for name in filters), *(f"× beam, {name}" for name in filters)]
        rows = [
            [name, *(point["recall"][f] for f in filters), *(point["ratio"][f] for f in filters)]
            for name, point in one["points"].items()
        ]
        parts += [f"**{int(size):,} items**, {one['cells']:,} cells", markdown(heads, rows)]
    rows = [[name, value] for name, value in found["on_paper"].items()]
    computed = "On paper, computed from the sizes of the arrays and not measured:"
    return "\n\n".join([*parts, computed, markdown(["ten million items", ""], rows), by_command(found)])


def batches(found: Results) -> str:
    """Draws what a list costs in a batch and by itself."""
    rows = [
        [what, middle([pair[key]["cpu_us"] for pair in found["pairs"]]),
         value_range([pair[key]["cpu_us"] for pair in found["pairs"]])]
        for what, key in ((f"in a batch of {found['size']}", "batch"), ("by itself", "single"))
    ]  # fmt: skip
    low, high = found["interval"]
    return "\n\n".join(
        [
            markdown(["µs of processor time a list", "median of the blocks", "range"], rows),
            f"In a batch ÷ by itself: {cell(found['ratio'])}, 95 % interval {cell(low)} to {cell(high)}.",
            by_command(found),
        ]
    )


def gpu(found: Results) -> str:
    """Draws what was checked on a card, the times of decoder runs, and what the time did not suffice for."""
    checks = [[f"{one['items']:,} items, {one['dtype']}", one["what"], one["found"], one["holds"]]
              for one in found["checks"]]  # fmt: skip
    times = [
        [f"{one['items']:,} items, {one['dtype']}", "yes" if one["graphs"] else "no",
         one["batch"], one["p50_ms"], one["p99_ms"], one["lists_per_s"]]
        for one in found["times"]
    ]  # fmt: skip
    left_out = [f"Left out, for want of time: {'; '.join(found['left_out'])}."] if found["left_out"] else []
    return "\n\n".join(
        [
            f"Card: {found['card']}; onnxruntime-gpu {found['onnxruntime_gpu']}.",
            markdown(["artefact", "check", "found", "holds"], checks),
            markdown(["artefact", "CUDA graphs", "rows of a run", "p50 ms", "p99 ms", "lists/s"], times),
            *left_out,
            by_command(found),
        ]
    )


SECTIONS: dict[str, Callable[[Results], str]] = {
    "engine_before": engine_before, "before_after": before_after, "batches": batches,
    "cells": cells, "gpu": gpu,
}  # fmt: skip
