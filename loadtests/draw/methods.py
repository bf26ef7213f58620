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
    return "\n\n".join(
        f"{part['data']} ({key}):\n\n{markdown(list(COLUMNS), [_line(line) for line in part['table']])}\n\n"
        + by_command({**found, **part})
        for key, part in found["parts"].items()
        if part["table"]
    )


ENCODER_COLUMNS = (
    "data", "events of a history", "encoder", "seeds", "questions", "NDCG@10", "ahead of the window", "reads, events",
    "state, bytes", "ms after an event", "over the window's", "by",
)  # fmt: skip
_UNCUT = 1 << 62  # longer than any history


def encoders(found: Results) -> str:
    """Draws what encoders with a memory gain on the window and cost: one table of all data sets and lengths."""
    parts = sorted(found["parts"].values(), key=lambda part: (part["data"], part.get("length") or _UNCUT))
    number = {command: n for n, command in enumerate(dict.fromkeys(part["command"] for part in parts), 1)}
    rows = [_cost(part, line, number[part["command"]]) for part in parts for line in part["table"]]
    listed = "\n".join(f"{n}. `{command}`" for command, n in number.items())
    return f"{markdown(list(ENCODER_COLUMNS), rows)}\n\n*By* is the command:\n\n{listed}"


def _cost(part: Results, line: Results, number: int) -> list[Any]:
    value = line.get("figure", line.get("ndcg@10"))
    figure = None if value is None else f"{value:.4f}{part.get('unit', '')}"
    gain = [None, None] if line["low"] is None else [difference(line), f"{line['event_ratio']:.2f} ×"]
    return [
        part["data"], part.get("length") or "all", line["encoder"], line["seeds"], line.get("questions"), figure,
        gain[0], "all" if line["reads"] is None else line["reads"], line["state_bytes"], f"{line['event_ms']:.2f}",
        gain[1], number,
    ]  # fmt: skip


HORIZON_COLUMNS = (
    "training", "compared with", "seeds", "NDCG@10", "NDCG@10 ahead", "p of the t-test", "lists changed by even times",
    "NDCG@10 lost to them", "novelty, bits", "age, days", "verdict",
)  # fmt: skip


def horizons(found: Results) -> str:
    """Draws a table for each data set and horizon, and how much more decay gains with other positions."""
    parts = []
    for key, part in found["parts"].items():
        for horizon, lines in part["tables"].items():
            title = f"{part['data']} ({key}), a {horizon} ahead, {part['questions'][horizon]:,} questions:"
            parts.append(f"{title}\n\n{markdown(list(HORIZON_COLUMNS), [_ahead(line) for line in lines])}")
            more = [
                [one["positions"], difference(one)] for one in part.get("interactions", {}).get(horizon, [])
            ]  # fmt: skip
            if more:
                parts.append(markdown(["positions", "gain of the learned decay, more than with rotary ones"], more))
        parts.append(by_command({**found, **part}))
    return "\n\n".join(parts)


def _ahead(line: Results) -> list[Any]:
    of = line["ahead"]["ndcg@10"]
    gain = {**of, "p_holm": max(of["p_bootstrap_holm"], of["p_t_holm"])}
    return [
        line["training"], line["against"], line["seeds"], mean_of_seeds(line["ndcg@10"]), difference(gain),
        f"{of['p_t']:.2g}", f"{line['changed by even times']:.3f}", f"{line['ndcg@10 lost to even times']:+.4f}",
        f"{line['novelty@10']:.2f}", f"{line['age@10, days']:.1f}", line["verdict"],
    ]  # fmt: skip


def _line(line: Results) -> list[Any]:
    took = "–" if line["seconds_ratio"] is None else f"{line['seconds_ratio']:.2f} ×"
    how = " (token paths)" if line["ranked_by"] == "path" else ""
    return [
        line["method"] + how, line["against"], line["seeds"], mean_of_seeds(line["recall@10"]),
        mean_of_seeds(line["ndcg@10"]), difference(line["ahead"]["ndcg@10"]),
        *(f"{line[key]:.3f}" for name in ("coverage@10", "diversity@10") for key in (name, f"{name}, against")),
        took, f"{line['bytes_ratio']:.2f} ×", line["verdict"],
    ]  # fmt: skip


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "quality_methods": training_methods,
    "quality_encoders": encoders,
    "quality_horizons": horizons,
}
