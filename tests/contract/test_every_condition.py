"""Every condition can be asked for by HTTP and on the playground, moves the list, and leaves the state as it is."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from service.schemas.playground_answers import ListsAnswer, PlaygroundAnswer
from tests.support.aio import asynchronous
from tests.support.artifacts import write_artifact
from tests.support.conditions import ASKED, CONTEXT, conditional_parts
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

START_MS = 1_500_000_000_000  # so long ago that the gap to now is unknown
Scores = dict[str, float]


class Counted:
    """The engine of an artefact, which counts what it encodes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, prompt_for: str | None) -> None:
        self.engine = Engine.open(write_artifact(folder, conditional_parts(prompt_for)), device="cpu", threads=1)
        self.encoded = 0
        encode = self.engine.encode

        def counted(jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
            self.encoded += len(jobs)
            return encode(jobs)

        monkeypatch.setattr(self.engine, "encode", counted)


async def listed(service: Service, **body: Any) -> Scores:
    answer = await service.recommend(k=8, decoding={"strategy": "beam"}, **body)
    assert (answer["rung"], answer["reason"]) == ("full", None)
    return {item["item_id"]: round(item["score"], 4) for item in answer["items"]}


@pytest.mark.parametrize("prompt_for", [None, "scene", "segment"])
@asynchronous
async def test_every_condition_moves_a_list_and_encodes_nothing_anew(
    prompt_for: str | None, shared_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features, scene and control codes; a scene and a segment by their soft prompts alone as well."""
    counted = Counted(tmp_path, monkeypatch, prompt_for)
    where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": f"asked:{uuid.uuid4().hex}:"}
    async with serving(
        cast("FakeEngine", counted.engine), **where, operator=True, history_cap=64, deadline_ms=60_000.0
    ) as service:
        await service.post_events("u", "i1", "i2", "i3", start_ms=START_MS)
        await service.settled()
        before = counted.encoded
        plain = await listed(service, user_id="u")
        for slot, body in ASKED.items():
            found = [await listed(service, user_id="u", **body(value)) for value in CONTEXT.values[slot]]
            assert plain not in found and found[0] != found[1], slot
            answer = await service.recommend(user_id="u", **body("unheard of"))
            assert any("unheard of" in warning for warning in answer["warnings"]), slot
            assert await listed(service, user_id="u", **body("unheard of")) == plain, slot
        for segment in CONTEXT.values["segment"]:
            stored = await service.client.put("/users/u/features", json={"features": {"segment": segment}})
            assert stored.status_code == 200
            await service.settled()
            assert await listed(service, user_id="u") == await listed(service, user_id="u", **ASKED["segment"](segment))
            assert await listed(service, user_id="u", features={}) == plain
        assert counted.encoded == before, "a change of features costs no encoding"


@asynchronous
async def test_the_playground_offers_every_condition_and_lists_as_recommend_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(tmp_path, monkeypatch, "scene")
    async with serving(cast("FakeEngine", counted.engine), playground=True, deadline_ms=60_000.0) as service:
        about = PlaygroundAnswer.model_validate((await service.client.get("/playground/about")).json())
        assert about.scenes == ["basket", "home"]
        assert about.features == {"age": ["old", "young"], "segment": ["gift", "pro"]}
        assert about.codes == {"category": ["a", "b"], "price_band": ["high", "low"], "style": ["oak", "pine"]}
        events = [{"item_id": f"i{n}", "type": "view", "timestamp": START_MS + 1000 * n} for n in range(3)]
        for slot, body in ASKED.items():
            for value in CONTEXT.values[slot]:
                asked = {"events": events, "k": 8, "decoding": {"strategy": "beam"}, **body(value)}
                answer = await service.client.post("/playground/lists", json={"request": asked})
                (shown,) = ListsAnswer.model_validate(answer.json()).lists
                found = {item.item_id: round(item.score, 4) for item in shown.items}
                assert found == await listed(service, events=events, **body(value)), (slot, value)
