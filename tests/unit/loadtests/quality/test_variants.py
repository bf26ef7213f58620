"""The comparison of encoders: resumed where it stopped, corrected for the number of comparisons, drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import export.from_run as from_run
from loadtests.common import results
from loadtests.draw.quality_variants import variants as drawn
from loadtests.quality import variants
from model.data.dataset import Dataset
from model.network.encoders.registry import encoder_class
from model.training.config import TrainConfig
from model.training.run_folder import Run
from tests.support.artifacts import learn_nothing
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in


@pytest.mark.parametrize(("events", "layers"), [(8, 1), (40, 2)], ids=["short histories", "long histories"])
def test_every_encoder_without_a_state_reads_as_many_events_as_our_own_can(events: int, layers: int) -> None:
    dataset = tiny_dataset(users=30, min_events=events, max_events=events)
    assert variants.settings("gpt4rec", 3, dataset) == TrainConfig(seed=3, max_epochs=1000, patience=1000)
    reach = layers * TrainConfig().network_values()["window"] + 2
    for name in variants.WHOLE:
        assert variants.settings(name, 0, dataset).network == {"window": reach}
    for name in variants.STEPPED:
        assert variants.settings(name, 0, dataset) == TrainConfig(encoder=name, max_epochs=1000, patience=1000)


def test_encoders_that_are_compared_stream_where_their_settings_say_so() -> None:
    assert [name for name in variants.ENCODERS if encoder_class(name).streams] == [variants.OURS, *variants.STEPPED]


def test_one_command_measures_what_is_missing_and_draws_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in(tmp_path, monkeypatch)
    monkeypatch.setattr(from_run, "learn_ranker", learn_nothing)
    monkeypatch.setattr(variants, "TIMED", 2)
    tiny = TrainConfig(size="tiny", encoder="gru4rec", batch_tokens=500, max_epochs=1)
    dataset = tiny_dataset(users=60)
    dataset.save(tmp_path / "data")
    real = variants.measured(dataset, tmp_path / "data", tmp_path / "variants-tiny-1" / "real", tiny, 1.0)
    assert real["epochs"] == 1
    assert not real["streams"]
    assert real["event_ms"] > 0

    def measured(dataset: Dataset, data: Path, run: Path, config: TrainConfig, minutes: float) -> dict[str, Any]:
        asked.append(run.name)
        return real | {"encoder": config.encoder, "seed": config.seed, "ranks": np.roll(real["ranks"], config.seed)}

    asked: list[str] = []
    opened = Run.open
    monkeypatch.setattr(variants, "measured", measured)
    monkeypatch.setattr(Run, "open", lambda _: opened(tmp_path / "variants-tiny-1" / "real"))
    options = ["--data", str(tmp_path / "data"), "--work", str(tmp_path), "--minutes", "1", "--seeds", "0,1"]
    for only in ("gpt4rec", "gpt4rec,gru4rec"):
        done = CliRunner().invoke(variants.app, [*options, "--only", only])
        assert done.exit_code == 0, done.output
    assert asked == ["gpt4rec-0", "gpt4rec-1", "gru4rec-0", "gru4rec-1"]
    found = json.loads((tmp_path / "quality_variants.json").read_text("utf-8"))
    [part] = found["parts"].values()
    systems = [line["system"] for line in part["table"]]
    assert systems == ["gpt4rec", "gru4rec", "item-CF", "popularity", "repeat purchase, history kept"]
    assert part["table"][1]["behind"]["recall@10"]["difference"] == 0.0
    assert all(f"| {system} |" in drawn(found) for system in systems)
    criteria = {one["criterion"] for one in results.read_rows(tmp_path / "quality.json")}
    assert "tiny: recall@10, gru4rec, 1 minutes" in criteria
