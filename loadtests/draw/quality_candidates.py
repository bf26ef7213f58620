"""The tables of the candidates that join the beam in `docs/quality.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.draw.tables import by_command, markdown
from model.evaluation.bootstrap import holm

Results = Mapping[str, Any]

WORTH = (
    "data",
    "lists; weights of path, dense score",
    "beam alone, recall@10 / NDCG@10",
    "others joined",
    "recall@10 gained",
    "p, Holm",
)
COST = ("catalogue", "width", "beam alone, ms", "others joined, ms", "ratio")


def candidates(found: Results) -> str:
    """Draws the gain of joined candidates beside the exhaustive dense score, and their cost."""
    cases = [(data, lists) for data, one in found["worth"].items() for lists in one["lists"]]
    adjusted = iter(holm([_lead(lists)["p_value"] for _, lists in cases]))
    rows = []
    for data, one in found["worth"].items():
        rows += [_worth(data, lists, next(adjusted)) for lists in one["lists"]]
        rows.append(
            [data, f"exhaustive dense score, {one['users']:,} users", None, _pair(one["exhaustive"]), None, None]
        )
    times = [
        [label, width, *(f"{ms[name]['cpu_p50']:.2f}" for name in ("alone", "joined")), f"{ms['ratio']:.2f}"]
        for label, one in found["cost"].items()
        for width, ms in one.items()
        if width != "items"
    ]
    said = "Milliseconds of processor time of one list, at batch 1, p50:"
    return "\n\n".join([markdown(list(WORTH), rows), said, markdown(list(COST), times), by_command(found)])


def _worth(data: str, lists: Results, p_value: float) -> list[Any]:
    weights = f"{1 - lists['blend']:g}, {lists['blend']:g}"
    name = f"{lists['strategy']}, width {lists['width']}; {weights}"
    lead = _lead(lists)
    gained = f"{lead['difference']:+.4f} ({lead['low']:+.4f} … {lead['high']:+.4f})"
    return [data, name, _pair(lists["alone"]), _pair(lists["joined"]), gained, f"{p_value:.4f}"]


def _lead(lists: Results) -> Results:
    """Returns the gain in recall@10."""
    found: Results = next(one for one in lists["lead"] if one["metric"] == "recall@10")
    return found


def _pair(figures: Results) -> str:
    return f"{figures['recall@10']:.4f} / {figures['ndcg@10']:.4f}"
