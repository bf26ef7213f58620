"""The tables of conditions and of long histories in `docs/quality.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.draw.intervals import difference
from loadtests.draw.tables import by_command, markdown
from loadtests.quality.means import with_holm

Results = Mapping[str, Any]

COLUMNS = ("condition", "seeds", "questions", "recall@10 without", "with", "difference", "NDCG@10 without", "with",
           "difference")  # fmt: skip
LENGTHS = ("events kept", "window", "seeds", "recall@10", "NDCG@10", "recall@10 less full attention", "epochs",
           "CPU s an epoch", "ms a history", "ms an event", "state, bytes")  # fmt: skip


def conditions(found: Results) -> str:
    """Draws the ablations of each data set, and below them every training with every set of known conditions."""
    parts = []
    for name, rows in found["ablations"].items():
        runs = [run for key, run in found["runs"].items() if key.startswith(f"{name}-")]
        if not runs:
            continue
        corrected = with_holm([row["recall@10"] for row in rows])
        lines = [_ablation(row | {"recall@10": one}) for row, one in zip(rows, corrected, strict=True)]
        title = f"{runs[-1]['data']}:"
        parts += [title, markdown(list(COLUMNS), lines)] if rows else [title]
        parts.append(markdown(["training", "asked", "seeds", "recall@10", "NDCG@10", "coverage@10"], _asked(runs)))
    return "\n\n".join([*parts, by_command(found)])


def _ablation(row: Results) -> list[Any]:
    cells: list[Any] = [row["label"], row["seeds"], row["questions"]]
    for measure in ("recall@10", "ndcg@10"):
        one = row[measure]
        cells += [f"{one['without']:.4f}", f"{one['with']:.4f}", difference(one)]
    return cells


def _asked(runs: Sequence[Results]) -> list[list[Any]]:
    """Returns rows of means over the seeds."""
    figures: dict[tuple[str, str], list[Results]] = {}
    for run in runs:
        for how, one in run["figures"].items():
            figures.setdefault((run["variant"], how), []).append(one)
    return [
        [variant, how, len(seeds), *(f"{mean(seeds, m):.4f}" for m in ("recall@10", "ndcg@10", "coverage@10"))]
        for (variant, how), seeds in figures.items()
    ]


def mean(seeds: Sequence[Results], measure: str) -> float:
    """Returns the mean of a measure over the seeds."""
    return sum(float(one[measure]) for one in seeds) / len(seeds)


def long_histories(found: Results) -> str:
    """Draws a row for each data set, length and window; figures are means over the seeds."""
    groups: dict[tuple[str, float, int, int], list[Results]] = {}
    for run in found["runs"].values():
        groups.setdefault((run["data"], run["minutes"], run["length"], run["window"]), []).append(run)
    against = {(d["data"], d["length"], d["window"]): d["recall@10"] for d in found["differences"]}
    parts = []
    for data, minutes in dict.fromkeys(key[:2] for key in groups):
        keys = sorted(key for key in groups if key[:2] == (data, minutes))
        lines = [_long(key[2], key[3], groups[key], against.get((data, *key[2:]))) for key in keys]
        parts += [f"{data}, {minutes:g} minutes of training on one core each:", markdown(list(LENGTHS), lines)]
    return "\n\n".join([*parts, by_command(found)])


def _long(length: int, window: int, runs: Sequence[Results], less: Results | None) -> list[Any]:
    costs = [mean(runs, name) for name in ("epochs", "cpu_seconds_an_epoch", "encode_ms", "event_ms")]
    return [
        f"{length:,}", f"{window} (full)" if window == length else window, len(runs),
        *(f"{mean(runs, name):.4f}" for name in ("recall@10", "ndcg@10")),
        "–" if less is None else difference(less),
        f"{costs[0]:.1f}", f"{costs[1]:.0f}", f"{costs[2]:.1f}", f"{costs[3]:.2f}", int(mean(runs, "state_bytes")),
    ]  # fmt: skip
