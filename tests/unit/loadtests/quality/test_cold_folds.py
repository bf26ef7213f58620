"""Cold items over folds: every item once, judged question by question over all folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from loadtests.common import results
from loadtests.draw.quality_cold import folds as drawn
from loadtests.quality import cold_folds, criteria
from loadtests.quality.cold_trial import MEASURES, WAYS, folds_of_items
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in


def figures(hits: list[float], warm: list[float], first_item: int) -> dict[str, Any]:
    values = {"cold": hits, "warm": warm}
    return {
        "figures": {kind: {m: float(np.mean(some)) for m in MEASURES} for kind, some in values.items()},
        "of_users": {kind: dict.fromkeys(MEASURES, some) for kind, some in values.items()},
        "targets": {"cold": [first_item + n // 2 for n in range(len(hits))], "warm": [0] * len(warm)},
        "users": {kind: [f"u{n}" for n in range(len(some))] for kind, some in values.items()},
    }


def measured(folds: int, gain: float, warm: float) -> list[dict[int, dict[str, dict[str, Any]]]]:
    """Of each fold 40 cold questions, of which texts alone answer a tenth, and 50 warm ones."""
    nothing, some = [0.0] * 40, [1.0] * 4 + [0.0] * 36
    more = [1.0] * round(4 + 40 * gain) + [0.0] * round(36 - 40 * gain)
    full = [1.0] * 25 + [0.0] * 25
    ways = {"id": (nothing, full), "content": (more, [value * warm for value in full]), "nearest": (some, full)}
    return [
        {0: {name: figures(hits, of_warm, 100 * fold) for name, (hits, of_warm) in ways.items()}}
        for fold in range(folds)
    ]


def test_every_item_with_events_is_in_exactly_one_fold() -> None:
    dataset = tiny_dataset(30, 23)
    folds = folds_of_items(dataset, 10)
    assert len(folds) == 10
    items = [item for fold in folds for item in fold]
    assert sorted(items) == sorted(set(dataset.events["item_id"]))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert folds == folds_of_items(dataset, 10)


def test_cold_items_must_be_found_by_more_than_texts_alone_and_warm_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in(tmp_path, monkeypatch)
    cold_folds.record(criteria.FOLDS, measured(10, 0.2, 0.995), "command")
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "quality.json")}
    found = rows[f"{criteria.FOLDS}: recall@10 {criteria.COLD}"]
    assert found["holds"]
    assert found["limit"] == "> 0"
    lost = rows[f"{criteria.FOLDS}: ndcg@10 {criteria.WARM}"]
    assert lost["value"] == pytest.approx(0.005)
    assert (lost["limit"], lost["holds"]) == ("≤ 0.01", True)
    saved = results.load(cold_folds.NAME, tmp_path)
    assert saved is not None
    part = saved["parts"][criteria.FOLDS]
    assert part["questions"] == {"cold": 400, "warm": 500}
    assert len(part["folds"]) == 10
    assert "| 10 | 40 | 0.0000 | 0.3000 | 0.1000 |" in drawn(saved)


def test_questions_for_one_item_and_warm_ones_of_one_user_are_drawn_together() -> None:
    found = measured(3, 0.0, 1.0)
    cold, warm = (cold_folds.clusters(found, kind) for kind in cold_folds.KINDS)
    assert len(np.unique(cold)) == 3 * 20
    assert len(np.unique(warm)) == 50


def test_a_way_that_cannot_be_compared_is_refused() -> None:
    assert cold_folds.chosen("") == list(WAYS)
    assert cold_folds.chosen("nearest, id") == ["id", "nearest"]
    with pytest.raises(typer.BadParameter, match="choose from"):
        cold_folds.chosen("id,nearest,magic")
    with pytest.raises(typer.BadParameter, match="to compare with"):
        cold_folds.chosen("content")
