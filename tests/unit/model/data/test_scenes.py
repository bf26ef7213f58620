"""The scene of a request: fitted on the training part only, shown some of the time, and it moves the ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.data.dataset import NO_SCENE, Dataset, sequences
from model.data.split import Split, leave_one_out
from model.network.scoring import dense_logits, encode_histories
from model.training.conditions import Conditions, fit_context, item_controls
from model.training.config import TrainConfig
from model.training.trainer import Trainer
from service.artifact.features import GAP_UNKNOWN, ContextVocabulary, EventArrays
from tests.support.data_builders import tiny_dataset

ITEMS = 10
# At lunch the items of the first half follow, whatever came before; at dinner those of the second.
LUNCH = pl.col("item_id").str.strip_prefix("i").cast(pl.Int64) < ITEMS // 2


def with_scenes(users: int, held_out: str | None = None) -> Dataset:
    """Jumps anywhere, each in the scene of its item; the last two events of a user happen in `held_out`, if given."""
    plain = tiny_dataset(users, ITEMS, follow=0.0)
    scene = pl.when(LUNCH).then(pl.lit("lunch")).otherwise(pl.lit("dinner"))
    if held_out:
        late = pl.int_range(pl.len()).over("user_id") >= pl.len().over("user_id") - 2
        scene = pl.when(late).then(pl.lit(held_out)).otherwise(scene)
    events = plain.events.with_columns(scene=scene)
    return Dataset.of("scenes", events, plain.items, plain.users, has_time=True, category_kind="path")


def fitted(dataset: Dataset) -> tuple[Split, ContextVocabulary, Conditions]:
    split = leave_one_out(sequences(dataset))
    controls = item_controls(dataset, split.train.item_ids)
    vocabulary = fit_context(dataset, split.train, controls)
    return split, vocabulary, Conditions.of(dataset, split.train, vocabulary, controls)


def shown(conditions: Conditions, scene: torch.Tensor, settings: TrainConfig) -> torch.Tensor:
    zero = torch.zeros_like(scene)
    return conditions.sample(settings, zero, zero, zero, scene)[0][:, -2]


def test_a_scene_of_held_out_events_only_is_unknown_and_never_shown() -> None:
    split, vocabulary, conditions = fitted(with_scenes(10, held_out="midnight"))
    assert split.sequences.scenes == ("dinner", "lunch", "midnight")
    assert vocabulary.values["scene"].keys() == {"dinner", "lunch"}
    rows = shown(conditions, torch.tensor([0, 1, 2, NO_SCENE]), TrainConfig(scene_known=1.0))
    assert rows.tolist() == [vocabulary.values["scene"]["dinner"], vocabulary.values["scene"]["lunch"], 0, 0]
    assert vocabulary.encode({"scene": "lunch"})[-2] == rows[1]


def test_a_scene_is_shown_as_often_as_configured_and_is_its_position_s() -> None:
    _, _, conditions = fitted(with_scenes(10))
    torch.manual_seed(0)
    scene = torch.randint(2, (4000,))
    rows = shown(conditions, scene, TrainConfig(scene_known=0.25))
    known = rows > 0
    assert float(known.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(rows[known], conditions.scenes[scene[known]])
    assert not shown(conditions, scene, TrainConfig(scene_known=0.0)).any()


def test_without_learned_scenes_no_random_number_is_drawn_for_them() -> None:
    scene = torch.full((50,), NO_SCENE)
    _, _, conditions = fitted(tiny_dataset(10, ITEMS))
    states = []
    for share in (0.1, 0.9):
        torch.manual_seed(0)
        assert not shown(conditions, scene, TrainConfig(scene_known=share)).any()
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    torch.rand(50, conditions.features.shape[1])
    for _ in range(4):  # which category, whether it is shown, whether the price band and the gap are
        torch.rand(50)
    assert all(torch.equal(state, torch.get_rng_state()) for state in states)


def test_user_features_cannot_take_the_name_of_another_slot() -> None:
    plain = with_scenes(10)
    users = plain.users.with_columns(scene=pl.lit("x"), category=pl.lit("y"))
    named = Dataset.of("named", plain.events, plain.items, users, has_time=True, category_kind="path")
    assert fitted(named)[1] == fitted(plain)[1]


@pytest.mark.usefixtures("one_thread")
def test_the_ranking_follows_the_scene_of_the_request(tmp_path: Path) -> None:
    settings = TrainConfig(
        size="tiny", batch_tokens=200, learning_rate=3e-2, warmup_steps=5, decay="none", max_epochs=8, max_length=16
    )
    trainer = Trainer(with_scenes(60), Path("data"), tmp_path, settings)
    trainer.fit()
    model = trainer.average
    log, ends = trainer.split.sequences, trainer.split.test.history_end
    starts = log.offsets[trainer.split.test.users]
    spans = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    histories = [trainer.vocabulary.with_start(EventArrays(log.item[s], log.type[s], log.time_ms[s])) for s in spans]

    @torch.no_grad()
    def at_lunch(scene: str | None) -> float:
        """Share of the best three of every user that is eaten at lunch."""
        table = model.item_table()
        h = encode_histories(model, histories, table)
        context = torch.from_numpy(trainer.context.encode({"scene": scene})).to(h.device).expand(len(h), -1)
        gap = torch.full((len(h),), GAP_UNKNOWN, device=h.device)
        best = dense_logits(model.query(h, context, gap), table).topk(3).indices.cpu().numpy()
        number = np.array([int(item_id.removeprefix("i")) for item_id in log.item_ids])
        return float((number[best] < ITEMS // 2).mean())

    assert at_lunch("lunch") > 0.95
    assert at_lunch("dinner") < 0.05
    assert at_lunch("elsewhere") == at_lunch(None), "a scene that was never seen is an unknown one"
