"""Our ranking beside the peer's: the same data, the same split, or no row at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.common import results
from loadtests.quality import peers
from model.data.dataset import sequences
from model.evaluation.evaluate import DEPTH, evaluate
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from tests.support.data_builders import tiny_dataset


def ranked(recall: float) -> dict[str, object]:
    return {"means": {"blend": {"recall@10": {"mean": recall}, "ndcg@10": {"mean": recall / 2}}}}


def test_only_trainings_on_the_same_split_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "QUALITY", file := tmp_path / "quality.json")
    runs: list[dict[str, Any]] = [
        {"data": "shop", "held_out": "sample", "factors": 64, "valid_ndcg@10": 0.1,
         "test": {"recall@10": recall, "ndcg@10": 0.05}}
        for recall in (0.09, 0.11)
    ]  # fmt: skip
    # A wider one that validation finds weaker does not count.
    runs.append({**runs[0], "factors": 256, "valid_ndcg@10": 0.05, "test": {"recall@10": 0.3, "ndcg@10": 0.3}})
    runs.append({**runs[0], "data": "other", "held_out": "everybody", "test": {"recall@10": 0.1, "ndcg@10": 0.05}})
    peers.beside("shop", runs, {"shop": ranked(0.11), "shop, validation_users=0": ranked(0.2)}, "command")
    rows = {row["criterion"]: row for row in results.read_rows(file)}
    assert {name: (row["value"], row["holds"]) for name, row in rows.items()} == {
        "shop, held out: sample; recall@10 by that of RecTools' SASRec": (1.1, True),
        "shop, held out: sample; ndcg@10 by that of RecTools' SASRec": (1.1, True),
    }
    older = {"other, validation_users=0": ranked(0.2)}
    peers.beside("other", runs, {**older, "strict other": ranked(0.104)}, "command")
    rows = {row["criterion"]: row for row in results.read_rows(file)}
    assert not rows["other, held out: everybody; recall@10 by that of RecTools' SASRec"]["holds"]


def test_the_peer_is_told_no_answer_and_its_lists_are_given_back_to_whom_they_are_for() -> None:
    dataset = tiny_dataset()
    split = split_of(TrainConfig(), sequences(dataset))
    told = peers.questions(split)
    for row, (low, high) in enumerate(zip(told["offsets"][:-1], told["offsets"][1:], strict=True)):
        np.testing.assert_array_equal(told["item"][low:high], split.sequences.item[split.history(split.test, row)])
    # Each list begins with the answer of its own user, unless the user had the item already.
    lists = (split.test.target[:, None] + np.arange(DEPTH)) % 30
    seen = [np.isin(lists[row], told["item"][low:high]) for row, (low, high) in enumerate(
        zip(told["offsets"][:-1], told["offsets"][1:], strict=True)
    )]  # fmt: skip
    lists = np.where(np.stack(seen), -1, lists)
    lists = np.take_along_axis(lists, np.argsort(lists < 0, axis=1, kind="stable"), axis=1)
    open_ = [not seen[row][0] for row in range(len(lists))]
    figures = evaluate({"peer": peers.listed(split, lists)}, split, batch=7, samples=1).systems["peer"].figures
    assert figures["recall@10"] == pytest.approx(np.mean(open_))
