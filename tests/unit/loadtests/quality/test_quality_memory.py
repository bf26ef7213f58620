"""The log with a needle: only the key says the answer, and every encoder that is asked gets its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from loadtests.common import results
from loadtests.draw.methods import encoders
from loadtests.quality import encoder_costs, memory
from loadtests.quality.memory_criteria import WINDOW, guessed
from model.data.dataset import sequences
from model.data.split import leave_one_out


def test_answers_follow_from_their_keys_alone_and_validation_asks_for_them() -> None:
    log = sequences(memory.needle_log(30, 0))
    ids = np.array([int(name[1:]) for name in log.item_ids])
    far = 0
    for user in range(log.n_users):
        items = ids[log.item[log.user(user)]]
        asked = np.flatnonzero(items == memory.QUESTION)
        keys = np.flatnonzero(items < memory.KEYS)
        assert len(items) > memory.LEAST_EVENTS and len(asked) == len(keys)
        assert (items[asked + 1] == memory.KEYS + items[keys]).all() and len(set(items[keys])) == len(keys)
        assert (asked - keys - 1 >= 1).all() and (asked - keys - 1 <= memory.LONGEST_TRAINED).all()
        far += int((asked - keys > memory.LONGEST_TRAINED // 2).sum())
        assert (np.diff(log.time_ms[log.user(user)]) >= 0).all()
    assert far > 10
    targets = ids[leave_one_out(log).valid.target]
    assert ((targets >= memory.KEYS) & (targets < memory.QUESTION)).all()


def test_a_guess_is_right_once_in_as_many_as_there_are_answers() -> None:
    limit = guessed(32, 128)["at_most"]
    lucky = np.random.default_rng(0).binomial(128, 1 / 32, 20_000) / 128
    assert 1 / 32 < limit < 0.12 and (lucky > limit).mean() < 0.01


def test_every_encoder_gets_its_rows_and_nothing_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "memory.json")
    names, written = f"{WINDOW},memory_bank", list[dict[Path, int]]()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            memory.main(tmp_path, names, length=90, epochs=1, users=12, questions=3, seed=1)
            written.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")})
    finally:
        torch.set_num_threads(before)
    assert written[0] and written[0] == written[1]
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "memory.json")}
    asked = [f"{n} events back: {name}" for n in (90, memory.LONGEST_TRAINED) for name in names.split(",")]
    assert rows.keys() == {f"needle, {one}, seed 1" for one in [*asked, "90 events back: the best encoder"]}
    assert rows[f"needle, 90 events back: {WINDOW}, seed 1"]["limit"] is not None
    assert rows["needle, 90 events back: the best encoder, seed 1"]["limit"] == "≥ 0.9"


@pytest.mark.usefixtures("one_thread")
def test_recall_and_costs_of_a_needle_join_the_table_of_encoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "memory.json")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(encoder_costs, "ROUNDS", 2)
    options: dict[str, Any] = {"length": 60, "epochs": 1, "users": 12, "questions": 3, "seed": 1, "costs": True}
    memory.main(tmp_path, WINDOW, **options)
    found = results.load(encoder_costs.NAME, tmp_path)
    assert found is not None
    drawn = encoders(found)
    assert f"| a needle | 60 | {WINDOW} | 1 | 3 |" in drawn and " recall@1 |" in drawn and "--costs`" in drawn
    with pytest.raises(typer.BadParameter, match="gpt4rec comes first"):
        memory.main(tmp_path, "memory_bank", **options)


def test_a_line_of_a_needle_says_how_far_an_encoder_is_ahead_of_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {"state_bytes": 1, "reads": None, "event_ms": 0.1, "event_ratio": 1.1}
    monkeypatch.setattr(memory, "costs_of", lambda folders, *_: dict.fromkeys(folders, costs))
    hits = {WINDOW: np.zeros(64), "memory_bank": np.ones(64), "hierarchy": np.zeros(64)}
    of_window, bank, hierarchy = memory.with_costs(dict.fromkeys(hits, tmp_path), hits, 60, memory.Trial(users=12))
    assert (of_window["figure"], of_window["low"], of_window["reads"]) == (0.0, None, None)
    assert (bank["figure"], bank["low"], bank["questions"]) == (1.0, 1.0, 64) and bank["p_holm"] < 0.05
    assert hierarchy["difference"] == 0.0 and hierarchy["p_holm"] == 1.0


def test_unknown_encoders_are_named() -> None:
    with pytest.raises(typer.BadParameter, match="bank: choose from gpt4rec"):
        memory.chosen("memory_bank,bank")
