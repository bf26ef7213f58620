"""Another model as a target: it decodes the logged requests again, from histories that the log has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.evaluation.artifact_target import ArtifactTarget
from model.evaluation.rankers import encoding_of
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of
from model.online.logged_lists import ItemNumbers, Sample, read_sample
from model.online.off_policy import judge
from model.online.partitions import LogRange
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import Job, ListRequest
from service.engine.run_groups import result_of
from service.policies.policies import parse
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

K, DRAWN = 4, Decoding("top_p", top_p=0.95, temperature=1.3)
START = 1_700_000_000_000


@pytest.fixture(scope="module")
def engine(random_artifact: Path) -> Engine:
    return Engine.open(random_artifact, device="cpu", threads=1)


def history(user: int, items: list[str]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(user)
    return [
        {"subject": f"u:{user}", "item_id": items[rng.integers(len(items))], "type": "click",
         "time_ms": START + 1000 * n, "received_ms": START + 1000 * n + 1}
        for n in range(rng.integers(1, 7))
    ]  # fmt: skip


def listed(engine: Engine, user: int, events: list[dict[str, Any]], time_ms: int) -> dict[str, Any]:
    """A list as the service would make and log it."""
    vocabulary = engine.artifact.vocabulary
    ranker = Ranker.of(engine.artifact.signals, engine.artifact.ranker)
    arrays = vocabulary.events(*zip(*((e["item_id"], e["type"], e["time_ms"]) for e in events), strict=True))
    excluded = np.unique(arrays.item)
    request = ListRequest(
        context=vocabulary.context.encode({}),
        gap_ms=vocabulary.context.gap(events[-1]["time_ms"], time_ms),
        decoding=DRAWN,
        k=K,
        excluded=excluded,
        seed=user,
        signals=ranker.user(UserHistory.of(arrays.item, arrays.time_ms, engine.receptive_field)),
    )
    made = result_of(engine.run([Job(encode=encoding_of(engine, arrays), request=request)])[0]).decoded
    assert made.draw is not None and made.draw.log_propensities is not None
    ids = engine.artifact.catalogue.item_ids
    return {
        "list_id": f"L{user}", "subject": f"u:{user}", "time_ms": time_ms, "k": K, "segment": "all",
        "strategy": "top_p",
        "items": [ids[item] for item in made.items.tolist()], "scores": made.scores.tolist(), "drawn": len(made.items),
        "log_propensities": made.draw.log_propensities.tolist(), "seed": str(user), "excluded": len(excluded),
        "parameters": {"temperature": 1.3, "top_p": 0.95, "beam_width": None}, "model_version": "m",
        "candidates": made.draw.items.tolist(), "candidate_scores": made.draw.scores.tolist(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def sample(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    items = list(engine.artifact.catalogue.item_ids)
    lists, events = [], []
    for user in range(24):
        before = history(user, items)
        lists.append(listed(engine, user, before, START + 60_000))
        after = {
            "subject": f"u:{user}",
            "item_id": lists[-1]["items"][user % 2],
            "type": "click",
            "list_id": f"L{user}",
        }
        events += [*before, {**after, "time_ms": START + 70_000, "received_ms": START + 70_000}]
    log = LogFolder(tmp_path_factory.mktemp("log"))
    log.write("exposures", frame_of("exposures", lists), "x")
    log.write("events", frame_of("events", events), "x")
    return read_sample(LogRange(log, from_ms=START + 30_000, histories=True), "clicks", lists_max=100)


def test_the_model_of_the_log_decodes_its_requests_as_they_were_decoded(engine: Engine, sample: Sample) -> None:
    assert len(sample.lists) == 24 and not sample.left_out
    numbers = ItemNumbers.of(sample.lists)
    for one, drawn in zip(sample.lists, ArtifactTarget(engine, "same").of(sample.lists, numbers), strict=True):
        assert drawn is not None
        again = dict(zip((engine.artifact.catalogue.item_ids[i] for i in one.candidates), one.scores, strict=True))
        assert [again[item] for item in one.items] == pytest.approx(drawn.scores[drawn.shown].tolist(), abs=1e-4)
        assert sorted(drawn.scores) == pytest.approx(sorted(one.scores), abs=1e-4)


def test_the_model_of_the_log_would_have_earned_what_it_earned(engine: Engine, sample: Sample) -> None:
    found = judge(sample, ArtifactTarget(engine, "same"), least_effective=10)
    assert not found["segments"][0]["on_policy"]
    for name in ("ips", "snips"):
        assert found["estimates"][name]["value"] == pytest.approx(1000, abs=1)
        assert found["lift"][name]["value"] == pytest.approx(0, abs=1)
    # The reward model's errors on these lists are not those on all lists.
    assert found["estimates"]["dr"]["value"] == pytest.approx(1000, abs=100)


def test_policies_say_how_the_other_model_decodes(engine: Engine, sample: Sample) -> None:
    policies = parse({"segments": [{"name": "all", "decoding": {"strategy": "greedy"}}], "default": "all"})
    numbers = ItemNumbers.of(sample.lists)
    for drawn in ArtifactTarget(engine, "greedy", policies).of(sample.lists, numbers):
        assert drawn is not None and not drawn.law.sampled and len(drawn.scores) == K


def test_lists_with_exclusions_that_the_log_does_not_explain_are_not_decoded(engine: Engine, sample: Sample) -> None:
    spoilt = [replace(one, request={**one.request, "excluded": 40}) for one in sample.lists[:5]]
    less = replace(sample, lists=[*spoilt, *sample.lists[5:]])
    said = judge(less, ArtifactTarget(engine, "same"), least_effective=10)["refused"]
    assert "5 of 24 drawn lists cannot be decoded again" in said
