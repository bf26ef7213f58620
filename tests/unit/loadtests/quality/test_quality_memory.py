"""The log with a needle: only the key says the answer, and every encoder that is asked gets its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from loadtests.common import results
from loadtests.quality import memory
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


def test_unknown_encoders_are_named() -> None:
    with pytest.raises(typer.BadParameter, match="bank: choose from gpt4rec"):
        memory.chosen("memory_bank,bank")
