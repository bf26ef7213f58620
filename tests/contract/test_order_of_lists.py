"""An artefact with an order model: its lists are in that order, and are recorded as what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from export.order import with_order
from service.artifact.artifact import Artifact
from service.engine.draw import Draw
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob
from service.metrics.service_metrics import value_of
from service.ordering.ordering import Ordering
from tests.contract.test_recorded_lists import recorded
from tests.support.aio import asynchronous
from tests.support.fakes import N_ITEMS, FakeArtifact, FakeEngine
from tests.support.orders import NO_EFFECT, order_weights
from tests.support.serving import serving
from tests.support.valkey import Valkey

# The fake engine lists items from the highest index down; this order lists the first ones the other way round.
UPSIDE_DOWN = order_weights(
    N_ITEMS, weights={**NO_EFFECT, "score": 0.0, "item": 1.0}, item=-np.arange(N_ITEMS, dtype=np.float32) / 10,
    value=np.ones(N_ITEMS, np.float32), leave=0.0,
)  # fmt: skip


class Ordered(FakeEngine):
    """Its artefact has an order model, and its sampled lists were drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.artifact = FakeArtifact(self.artifact.catalogue, order=UPSIDE_DOWN)

    def _list(self, job: DecodeJob) -> DecodedList | Exception:
        listed = super()._list(job)
        if isinstance(listed, DecodedList) and job.request.decoding.sampled:
            law = np.full(len(listed.items), -1.0, np.float32)
            draw = Draw(law, listed.items, listed.scores)
            return DecodedList(listed.items, listed.scores, log_probs=listed.log_probs, draw=draw)
        return listed


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@asynchronous
async def test_the_first_items_are_in_the_order_that_earns_most(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey, Ordered(), order_first=3) as what:
        answer = await what.service.recommend(user_id="u", k=5, decoding={"strategy": "greedy"})
        assert ids(answer) == ["37", "38", "39", "36", "35"]
        assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
        assert [item["score"] for item in answer["items"]] == [-3.0, -2.0, -1.0, -4.0, -5.0]
        (entry,) = await what.entries("exposures")
        assert entry["items"] == ids(answer)
        assert (entry["drawn"], entry["log_propensities"], entry["seed"]) == (0, [0.0] * 5, None)
        counted = what.service.runtime.metrics.watch.ordered_lists
        assert value_of(counted, answer["segment"], "changed") == 1
        await what.service.recommend(user_id="u", k=1, decoding={"strategy": "greedy"})
        assert value_of(counted, answer["segment"], "same") == 1


@asynchronous
async def test_a_drawn_list_keeps_its_order_and_its_law(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey, Ordered()) as what:
        answer = await what.service.recommend(user_id="u", k=3, decoding={"strategy": "temperature"})
        assert ids(answer) == ["39", "38", "37"]
        (entry,) = await what.entries("exposures")
        assert (entry["drawn"], entry["log_propensities"]) == (3, [-1.0] * 3)


@asynchronous
@pytest.mark.parametrize(("said", "drawn", "greedy"), [("off", False, False), ("all", True, True)])
async def test_a_segment_says_which_lists_are_put_into_order(
    shared_valkey: Valkey, said: str, drawn: bool, greedy: bool
) -> None:
    async with recorded(shared_valkey, Ordered()) as what:
        decoding = {"strategy": "temperature"}
        segments = [
            {"name": "all", "decoding": decoding, "order": said},
            {"name": "seeking", "decoding": decoding, "order": said, "explore": {"share": 1.0, "decoding": decoding}},
        ]
        put = {"segments": segments, "default": "all", "reason": "try"}
        assert (await what.service.client.put("/ops/policies", json=put)).status_code == 200
        answer = await what.service.recommend(user_id="u", k=3)
        assert ids(answer) == (["37", "38", "39"] if drawn else ["39", "38", "37"])
        explored = await what.service.recommend(user_id="u", k=3, segment="seeking")
        assert ids(explored) == ["39", "38", "37"]
        other = await what.service.recommend(user_id="u", k=3, decoding={"strategy": "greedy"})
        assert ids(other) == (["37", "38", "39"] if greedy else ["39", "38", "37"])
        entries = {entry["list_id"]: entry for entry in await what.entries("exposures")}
        # Put into order after its draw, a list is deterministic: nothing says how probable the order was.
        entry = entries[answer["list_id"]]
        assert (entry["drawn"], entry["log_propensities"]) == ((0, [0.0] * 3) if drawn else (3, [-1.0] * 3))
        assert ("c" in entry) is not drawn
        assert (entries[explored["list_id"]]["drawn"], entries[explored["list_id"]]["explored"]) == (3, True)


@asynchronous
async def test_the_setting_switches_it_off(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey, Ordered(), order_first=0) as what:
        assert ids(await what.service.recommend(user_id="u", k=3, decoding={"strategy": "greedy"})) == [
            "39",
            "38",
            "37",
        ]


@asynchronous
async def test_an_artefact_with_an_order_serves_the_same_items_in_that_order(
    random_artifact: Path, tmp_path: Path
) -> None:
    plain = Artifact.open(random_artifact)
    weights = order_weights(plain.catalogue.n_exported)
    ordered = Artifact.open(with_order(plain, weights, tmp_path, {}))
    lists = []
    for artifact in (plain, ordered):
        engine = Engine(artifact, device="cpu")
        try:
            async with serving(cast("Any", engine), order_first=5) as service:
                answer = await service.recommend(events=[{"item_id": "i3"}], k=8, decoding={"strategy": "greedy"})
                assert (answer["rung"], answer["model_version"]) == ("full", artifact.model_version)
                lists.append(answer["items"])
        finally:
            engine.close()
    before, after = lists
    indices = np.array([plain.catalogue.index[item["item_id"]] for item in before])
    ordering = Ordering.of(weights, 5)
    assert ordering is not None
    places = ordering.order(indices, np.array([item["score"] for item in before], np.float32))
    assert [item["item_id"] for item in after] == [before[place]["item_id"] for place in places.tolist()]
    assert [item["score"] for item in after] == [before[place]["score"] for place in places.tolist()]
    assert places.tolist() != list(range(8))


@asynchronous
async def test_a_list_under_rules_is_put_into_order_only_where_they_hold_in_any_order(shared_valkey: Valkey) -> None:
    pin = {"name": "campaign", "kind": "pin", "item": "5", "position": 2}
    at_most = {"name": "variety", "kind": "at_most", "each": "category", "n": 1}
    first = {**at_most, "first": 2}
    greedy = {"strategy": "greedy"}
    async with recorded(shared_valkey, Ordered(), order_first=3) as what:
        pinned = ids(await what.service.recommend(user_id="u", k=4, decoding=greedy, rules=[pin]))
        assert pinned[1] == "5" and pinned[0] == "39"
        assert ids(await what.service.recommend(user_id="u", k=4, decoding=greedy, rules=[first]))[0] == "39"
        anywhere = ids(await what.service.recommend(user_id="u", k=4, decoding=greedy, rules=[at_most]))
        assert anywhere == ["37", "38", "39", "36"]
