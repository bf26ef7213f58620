"""Which of our parts stands beside which trainings of the peer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from loadtests.quality.protocols import BEFORE, SAMPLED, STRICT, part_name

Run = Mapping[str, Any]
SPLITS = {"everybody": STRICT, "sample": SAMPLED}


def held_out_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Returns (data set, held out) of all trainings, the strict split first."""
    return sorted({(run["data"], run["held_out"]) for run in runs}, key=lambda key: (key[1], key[0]))


def strongest(runs: Sequence[Run], data: str, held_out: str) -> list[Run]:
    """Returns the seeds of the peer's configuration with the best NDCG@10 on validation; none if it was not trained."""
    by_setting: dict[tuple[int, bool], list[Run]] = {}
    for run in runs:
        if (run["data"], run["held_out"]) == (data, held_out):
            by_setting.setdefault((run["factors"], run.get("published", False)), []).append(run)
    found = max(by_setting.values(), key=lambda some: fmean(run["valid_ndcg@10"] for run in some), default=[])
    return list(found)


def ours(ranked: Mapping[str, Any], data: str, held_out: str) -> tuple[str, Mapping[str, Any]] | None:
    """Returns the name and the means of our part on the same split; before the ranker if there is no newer one."""
    named = [part_name(data, SPLITS[held_out], "published", None)]
    named += [f"{data}, {BEFORE}"] if held_out == "everybody" else []
    for name in named:
        means = ranked.get(name, {}).get("means")
        if means is not None:
            return name, means
    return None
