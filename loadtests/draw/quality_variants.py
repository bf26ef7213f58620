"""The table of encoders in `docs/quality.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.draw.intervals import difference, mean_of_seeds
from loadtests.draw.tables import by_command, markdown

Results = Mapping[str, Any]

COLUMNS = (
    "system", "seeds", "recall@10", "NDCG@10", "NDCG@10 behind gpt4rec", "parameters", "s an epoch",
    "ms after an event", "state, bytes",
)  # fmt: skip


def variants(found: Results) -> str:
    """Draws a table for each data set and budget."""
    parts = [
        f"{part['data']}, {part['minutes']:g} minutes of training on one core each:\n\n"
        + markdown(list(COLUMNS), [_line(line) for line in part["table"]])
        for part in found["parts"].values()
        if part.get("table")
    ]
    return "\n\n".join([*parts, by_command(found)])


def _line(line: Results) -> list[Any]:
    per_event, state = line.get("event_ms"), line.get("state_bytes")
    return [
        line["system"], line["seeds"], mean_of_seeds(line["recall@10"]), mean_of_seeds(line["ndcg@10"]),
        "–" if line["system"] == "gpt4rec" else difference(line["behind"]["ndcg@10"]),
        "–" if "parameters" not in line else f"{line['parameters']:,}",
        "–" if "seconds_an_epoch" not in line else f"{line['seconds_an_epoch']:.1f}",
        "–" if per_event is None else f"{per_event:.2f}", "–" if state is None else f"{state:,}",
    ]  # fmt: skip
