"""Baselines served by name: an artefact without a network, whose lists are its scorer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from typer.testing import CliRunner

from export.cli import app as export_app
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation.evaluate import Histories, Ranker, item_cf_ranker, popularity_ranker, repeat_ranker
from model.evaluation.rankers import engine_ranker
from model.evaluation.signal_rankers import signal_rankers
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS, EventArrays
from service.artifact.manifest import ArtifactFileError
from service.artifact.scorers.repeat_purchase import Repeat
from service.common.errors import ModelError
from service.engine.baseline_engine import BaselineEngine
from service.engine.decoding import Decoding
from service.engine.encoder_state import EncoderState
from service.engine.factory import open_engine
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.history import state_blob
from service.history.state_blob import VersionedState
from service.lifecycle import canary
from tests.support.aio import asynchronous
from tests.support.data_builders import tiny_dataset
from tests.support.fakes import FakeEngine
from tests.support.serving import serving
from tests.support.valkey import Valkey

NOTHING = np.zeros(0, np.int64)
K = 10


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset(users=200)  # enough to learn weights from


# One of each kind: texts need an encoder, and the other tables are served as transitions are.
KINDS = ("item_cf", "popularity", "repeat", "transitions", "trend", "fused")


@pytest.fixture(scope="module", params=KINDS)
def engine(
    request: pytest.FixtureRequest, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> BaselineEngine:
    folder = tmp_path_factory.mktemp("baseline")
    dataset.save(folder / "data")
    options = ["--baseline", request.param, "--data", str(folder / "data"), "--out", str(folder / "out"), "--json"]
    done = CliRunner().invoke(export_app, options)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert "parity" not in report, "there are no graphs to compare"
    artifact = report["artifact"]
    assert Path(artifact).name.startswith(f"{request.param}-tiny-")
    opened = open_engine(artifact, device="cpu")
    assert isinstance(opened, BaselineEngine)
    return opened


def scorer(engine: BaselineEngine) -> tuple[Ranker, bool]:
    """What the evaluation asks of the same scorer, and whether lists are without the history's items."""
    a = engine.artifact
    about = dict(a.baseline or {})
    if about["name"] == "repeat":
        return repeat_ranker(Repeat(len(a.catalogue), about["decay"]), a.popularity), False
    if about["name"] == "popularity":
        return popularity_ranker(a.popularity), True
    if about["name"] != "item_cf":
        return signal_rankers(a, each=True)[about["name"]], not a.repeats
    return item_cf_ranker(a.item_cf, a.popularity), True


def questions(split: Split, *, exclude_history: bool) -> Histories:
    return Histories(split.test.users, split.test.history_end, split.sequences, exclude_history)


def test_its_lists_through_the_jobs_of_the_service_are_the_evaluations(
    engine: BaselineEngine, dataset: Dataset
) -> None:
    rank, exclude_history = scorer(engine)
    asked = questions(split_of(TrainConfig(), sequences(dataset)), exclude_history=exclude_history)
    served = engine_ranker(engine, Decoding("beam"), K)(asked)
    assert (served[:, :K] == rank(asked)[:, :K]).all()


def test_it_passes_the_check_that_comes_before_a_model_is_served(engine: BaselineEngine) -> None:
    canary.check(engine)


def test_every_item_is_allowed_and_not_excluded_and_there_are_k_whenever_k_are_allowed(engine: BaselineEngine) -> None:
    catalogue = engine.artifact.catalogue
    filters = {"category": ["dept1"]}
    number, allowed = engine.filter_id(filters), catalogue.allowed(filters)
    assert allowed is not None
    excluded = np.flatnonzero(allowed)[:3].astype(np.int64)
    [state] = engine.encode([EncodeJob(events=EventArrays(np.arange(6), NOTHING, NOTHING), from_start=True)])
    assert isinstance(state, EncoderState)
    for k in (1, 5, 50):
        request = ListRequest(
            context=NOTHING,
            gap_ms=GAP_UNKNOWN,
            decoding=Decoding("greedy"),
            k=k,
            filter_id=number,
            excluded=excluded,
        )
        [listed] = engine.decode([DecodeJob(h=state.h, request=request)])
        assert isinstance(listed, DecodedList)
        items = listed.items.tolist()
        assert len(items) == len(set(items)) == min(k, int(allowed.sum()) - 3)
        assert all(allowed[item] for item in items) and not set(items) & set(excluded.tolist())
        assert len(listed.scores) == len(items) and np.isfinite(listed.scores).all()


def test_its_state_is_the_newest_items_and_takes_no_event(engine: BaselineEngine) -> None:
    field = engine.receptive_field
    items = np.arange(field + 5) % 30
    events = EventArrays(items, np.zeros_like(items), np.zeros_like(items))
    [state] = engine.encode([EncodeJob(events=events, from_start=True)])
    assert isinstance(state, EncoderState)
    assert state.h.tolist() == items[-field:].tolist()
    read = state_blob.unpack(
        state_blob.pack(VersionedState.of(state, "0" * 16, 1.0), engine.state_layout), engine.state_layout
    )
    assert read is not None and (read.h == state.h).all()
    again, refused = engine.encode([
        EncodeJob(state=state, events=NO_EVENTS, from_start=False),
        EncodeJob(state=state, events=events, from_start=False),
    ])  # fmt: skip
    assert again is state and isinstance(refused, ModelError)


def test_a_baselines_artefact_must_be_whole_as_well(engine: BaselineEngine, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in engine.artifact.folder.iterdir():
        if file.name != "signal_item_cf.npz":
            (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ArtifactFileError, match=r"signal_item_cf\.npz is missing"):
        Artifact.open(copy)


def test_either_a_run_or_a_baseline_with_its_data_is_exported(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    for options in (
        [],
        ["--baseline", "item_cf"],
        ["--baseline", "best", "--data", "x"],
        ["--run", "r", "--baseline", "repeat"],
    ):
        done = CliRunner().invoke(export_app, [*out, *options])
        assert done.exit_code == 2 and "--baseline" in done.output


def explained_by_repeats(items: list[dict[str, Any]]) -> None:
    """Of the items of the history i1, i2, i1, i9: their scores, and of the events of each the last."""
    last = {"i1": 1_600_000_002_000, "i2": 1_600_000_001_000, "i9": 1_600_000_010_000}
    own, mean = items[:3], np.mean([item["score"] for item in items[:3]])
    for item in own:
        assert item["because"]["contributions"] == {"repeat": pytest.approx(item["score"] - mean, abs=1e-5)}
        event = item["because"]["event"]
        assert (event["item_id"], event["timestamp_ms"]) == (item["item_id"], last[item["item_id"]])
        assert (event["by"], event["exact"]) == ("repeat", True)
        assert (event["share"] == 1) == (item["item_id"] != "i1")
    assert [item["because"] for item in items[3:]] == [{"contributions": {}, "event": None}] * 2


@asynchronous
async def test_an_acknowledged_event_is_in_the_next_list(engine: BaselineEngine, shared_valkey: Valkey) -> None:
    name = str((engine.artifact.baseline or {})["name"])
    _, exclude = scorer(engine)
    known = list(engine.artifact.catalogue.item_ids)
    async with serving(
        cast("FakeEngine", engine), redis_url=shared_valkey.url, prefix=f"baseline-{name}:", history_cap=256,
        deadline_ms=30_000.0,
    ) as service:  # fmt: skip
        answer: dict[str, Any] = {}
        lists: list[list[str]] = []
        for items in (["i1", "i2", "i1"], ["i9"]):
            await service.post_events("u", *items, start_ms=1_600_000_000_000 + 10_000 * len(lists))
            answer = await service.recommend(user_id="u", k=5, exclude_seen=exclude, explain=True)
            assert (answer["rung"], answer["reason"], answer["warnings"]) == ("full", None, [])
            assert all("because" in item for item in answer["items"])
            lists.append([item["item_id"] for item in answer["items"]])
            await service.settled()
    if name == "repeat":
        assert set(lists[1][:3]) == {"i1", "i2", "i9"}
        explained_by_repeats(answer["items"])
    history = np.array([known.index(item) for item in ("i1", "i2", "i1", "i9")])
    if name == "item_cf":
        best, _ = engine.artifact.item_cf.recommend(history, 5, None, np.unique(history))
        assert lists[1][: len(best)] == [known[item] for item in best.tolist()]
    assert all(len(found) == 5 for found in lists)
