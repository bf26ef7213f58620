"""Tables of `docs/memory-figures.md` and of the methods in `docs/quality.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtests.draw.intervals import difference, mean_of_seeds
from loadtests.draw.tables import by_command, markdown

Results = Mapping[str, Any]

COLUMNS = (
    "method", "compared with", "seeds", "recall@10", "NDCG@10", "NDCG@10 ahead", "coverage@10", "of the other",
    "diversity@10", "of the other", "time of an epoch", "bytes kept", "verdict",
)  # fmt: skip


def training_methods(found: Results) -> str:
    """Draws a table for each data set: every method beside the training it is compared with."""
    parts = [
        f"{part['data']} ({key}):\n\n{markdown(list(COLUMNS), [_line(line) for line in part['table']])}"
        for key, part in found["parts"].items()
        if part["table"]
    ]
    return "\n\n".join([*parts, by_command(found)])


def _line(line: Results) -> list[Any]:
    how = " (token paths)" if line["ranked_by"] == "path" else ""
    return [
        line["method"] + how, line["against"], line["seeds"], mean_of_seeds(line["recall@10"]),
        mean_of_seeds(line["ndcg@10"]), difference(line["ahead"]["ndcg@10"]),
        *(f"{line[key]:.3f}" for name in ("coverage@10", "diversity@10") for key in (name, f"{name}, against")),
        f"{line['seconds_ratio']:.2f} ×", f"{line['bytes_ratio']:.2f} ×", line["verdict"],
    ]  # fmt: skip


SECTIONS: Mapping[str, Callable[[Results], str]] = {"quality_methods": training_methods}
