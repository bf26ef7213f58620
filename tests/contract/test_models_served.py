"""Changes of the model and of the policies, in a service whose parts can be looked at."""

from __future__ import annotations

import gc
import shutil
import weakref
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import yaml

from service.artifact.scorers.ranker_weights import DENSE, PATH
from service.engine.engine import Engine
from service.guard.guard import Outcome
from service.metrics.service_metrics import value_of
from service.schemas.ops_answers import ModelsAnswer, PoliciesAnswer
from service.store.records import Subject
from tests.support.aio import asynchronous, eventually
from tests.support.artifacts import random_parts, write_artifact
from tests.support.fakes import FakeEngine
from tests.support.networks import random_network
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

ALL = {"name": "all", "when": {"min_events": 0}, "decoding": {"strategy": "greedy"}}
ONE = {"segments": [ALL], "default": "all"}


@pytest.fixture(scope="module")
def made(two_versions: tuple[Path, Path]) -> tuple[Path, Path]:
    return two_versions


def served(artifact: Path, redis_url: str | None, prefix: str, **more: Any) -> AbstractAsyncContextManager[Service]:
    """A service that begins with this artefact, on a real engine."""
    engine = cast("FakeEngine", Engine.open(artifact, device="cpu", threads=1))
    quick = {"deadline_max_ms": 2000.0, "catch_up_timeout_ms": 100.0, "mode_poll_ms": 50.0, "history_cap": 400}
    settings = {"artifact": artifact, "device": "cpu", "operator": True, **quick, **more}
    return serving(engine, redis_url=redis_url, prefix=prefix, **settings)


async def activate(service: Service, version: str) -> Any:
    return await service.client.post(f"/ops/models/{version}/activate")


@asynchronous
async def test_an_old_model_leaves_the_memory_after_its_last_request(
    made: tuple[Path, Path], shared_valkey: Valkey
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "memory:") as service:
        await activate(service, new.name)
        await service.post_events("u1", "i1", "i2", "i3")
        await service.recommend(user_id="u1")
        gc.collect()
        gc.freeze()  # as a running service does: what is frozen goes by its last reference only
        try:
            model = service.runtime.space.model
            artifact = cast("Any", model.engine).artifact
            parts = (
                model.catalogue,
                artifact.item_table,
                artifact.item_cf.neighbour,
                cast("Any", model.engine)._tables,
            )
            left = [weakref.ref(part) for part in parts]
            del model, artifact, parts
            await activate(service, old.name)

            async def gone() -> bool:
                return all(part() is None for part in left)

            await eventually(gone, within_s=20.0)
        finally:
            gc.unfreeze()
        assert (await service.recommend(user_id="u1"))["model_version"] == old.name


@asynchronous
async def test_a_new_model_does_not_wait_for_what_the_former_one_broke(made: tuple[Path, Path]) -> None:
    old, new = made
    async with served(old, None, "breaker:", breaker_min_attempts=1) as service:
        assert service.runtime.space.guard.breaker.allow()
        service.runtime.space.guard.observe(Outcome.FAILED)
        before = (await service.client.get("/ops/fallback")).json()["breaker"]
        await activate(service, new.name)
        answer = await service.recommend(events=[{"item_id": "i1"}])
        after = (await service.client.get("/ops/fallback")).json()["breaker"]
    assert (before, after) == ("open", "closed")
    assert answer["rung"] == "full"


@asynchronous
async def test_a_model_that_reads_more_than_histories_keep_is_refused_and_says_what_to_set(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    old = Path(shutil.copytree(made[0], tmp_path / made[0].name))
    longer = write_artifact(tmp_path, random_parts(random_network(layers=3, seed=2)))
    async with served(old, None, "long:", history_cap=1) as service:
        refused = await activate(service, longer.name)
        answer = await service.recommend(events=[{"item_id": "i1"}])
    assert refused.status_code == 422
    assert "GPT4REC_HISTORY_CAP" in refused.json()["detail"]
    assert answer["model_version"] == old.name


@asynchronous
async def test_a_model_that_fails_its_check_is_refused(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made

    def dumb(*_: object) -> list[Exception]:
        return [RuntimeError("nothing comes out")]

    async with served(old, None, "canary:") as service:
        monkeypatch.setattr(Engine, "decode", dumb)
        refused = await activate(service, new.name)
        monkeypatch.undo()
        answer = await service.recommend(events=[{"item_id": "i1"}])
        shown = (await service.client.get("/ops/models")).json()
    ModelsAnswer.model_validate(shown)
    assert refused.status_code == 422 and "does not pass its check" in refused.json()["detail"]
    assert (answer["model_version"], answer["rung"]) == (old.name, "full")
    assert "does not pass its check" in next(m["fault"] for m in shown["models"] if m["version"] == new.name)


@asynchronous
async def test_another_deployment_begins_with_its_own_model(made: tuple[Path, Path], shared_valkey: Valkey) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "deploy:") as service:
        assert (await activate(service, old.name)).json()["chosen"] == old.name
    async with served(new, shared_valkey.url, "deploy:") as service:
        shown = (await service.client.get("/ops/models")).json()
    assert (shown["active"], shown["chosen"]) == (new.name, None)


@asynchronous
async def test_stock_holds_for_the_new_model_from_its_first_list_on(made: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = made
    file = tmp_path / "updates.jsonl"
    file.write_bytes(orjson.dumps({"item_id": "i7", "in_stock": False}) + b"\n")
    everything = {"events": [{"item_id": "i3"}], "k": 60, "exclude_seen": False, "decoding": {"strategy": "beam"}}
    async with served(old, None, "stock:", catalogue_updates=file) as service:
        await activate(service, new.name)
        first = await service.recommend(**everything)
        file.with_name("next").write_bytes(orjson.dumps({"item_id": "i8", "in_stock": False}) + b"\n")
        file.with_name("next").replace(file)

        async def followed() -> bool:
            listed = {item["item_id"] for item in (await service.recommend(**everything))["items"]}
            return "i8" not in listed and "i7" in listed

        assert "i7" not in {item["item_id"] for item in first["items"]} and first["model_version"] == new.name
        await eventually(followed, within_s=20.0)


@asynchronous
async def test_histories_in_use_are_encoded_for_the_new_model_before_it_is_served(
    made: tuple[Path, Path], shared_valkey: Valkey
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "prepared:") as service:
        for user in ("kept", "erased"):
            await service.post_events(user, "i1", "i2", "i3")
            await service.recommend(user_id=user)
        await activate(service, new.name)
        count = service.runtime.metrics.state_cache
        hits = value_of(count, "state", "hit")
        answer = await service.recommend(user_id="kept", seed=1)
        assert (answer["model_version"], answer["rung"]) == (new.name, "full")
        assert value_of(count, "state", "hit") == hits + 1
        await service.settled()
        service.runtime.space.states.cache.clear()
        assert (await service.recommend(user_id="kept", seed=1))["items"] == answer["items"]

        states, model = service.runtime.space.states, service.runtime.space.model
        await states.prepare(model)
        await service.client.delete("/users/erased")
        states.model_replaced()
        assert states.cache.get(Subject("user", "erased"), model) is None
        assert states.cache.get(Subject("user", "kept"), model) is not None


@asynchronous
async def test_a_model_with_the_same_encoder_takes_over_the_states_of_all_users(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    one, other = write_artifact(tmp_path), write_artifact(tmp_path, weights={PATH: 0.25, DENSE: 0.75})
    async with served(one, shared_valkey.url, "kept-states:") as service:
        for user in ("cached", "stored"):
            await service.post_events(user, "i1", "i2", "i3")
        await service.settled()
        service.runtime.space.states.forget(Subject("user", "stored"))
        count = service.runtime.metrics.state_cache
        before = {outcome: value_of(count, "state", outcome) for outcome in ("hit", "rebuilt", "stored")}
        assert (await activate(service, other.name)).status_code == 200
        for user in ("cached", "stored"):
            answer = await service.recommend(user_id=user)
            assert (answer["model_version"], answer["rung"]) == (other.name, "full")
        after = {outcome: value_of(count, "state", outcome) for outcome in before}
        assert after == before | {"hit": before["hit"] + 2}, "nothing was encoded again, or stored again"


# -- policies


@asynchronous
async def test_policies_that_are_set_hold_on_every_replica_and_after_a_restart(shared_valkey: Valkey) -> None:
    def replica() -> AbstractAsyncContextManager[Service]:
        return serving(redis_url=shared_valkey.url, prefix="policies:", operator=True, mode_poll_ms=50.0)

    async def of(service: Service) -> str:
        found: str = (await service.recommend(events=[{"item_id": "1"}]))["segment"]
        return found

    async with replica() as one, replica() as other:
        said = await one.client.put("/ops/policies", json={**ONE, "reason": "a test"})
        PoliciesAnswer.model_validate(said.json())
        assert (said.json()["origin"], said.json()["shared"], said.json()["actor"]) == ("operator", True, "tester")
        assert await of(one) == "all"

        async def told() -> bool:
            return await of(other) == "all"

        await eventually(told, within_s=10.0)
    async with replica() as again:
        assert await of(again) == "all"
        back = (await again.client.delete("/ops/policies")).json()
        assert back["origin"] == "file" and await of(again) == "new"
        entries = (await again.client.get("/ops/audit")).json()["entries"]
    assert [(e["action"], e["actor"], e["origin"], e["reason"]) for e in entries] == [
        ("policies", "tester", "file", None),
        ("policies", "tester", "operator", "a test"),
    ]


@asynchronous
async def test_policies_set_while_redis_is_away_outlive_a_restart(tmp_path: Path) -> None:
    async with serving(operator=True, data_dir=tmp_path) as service:
        said = await service.client.put("/ops/policies", json=ONE)
        assert (said.status_code, said.json()["shared"]) == (200, False)
    async with serving(operator=True, data_dir=tmp_path) as again:
        assert (await again.recommend(events=[{"item_id": "1"}]))["segment"] == "all"


@asynchronous
async def test_policies_that_do_not_fit_change_nothing_and_the_place_is_named() -> None:
    async with serving(operator=True) as service:
        wrong = {**ONE, "segments": [{**ALL, "decoding": {"strategy": "greedy", "top_p": "0.5"}}]}
        refused = await service.client.put("/ops/policies", json=wrong)
        unknown = await service.client.put("/ops/policies", json={**ONE, "default": "none"})
        shown = (await service.client.get("/ops/policies")).json()
    assert (refused.status_code, unknown.status_code) == (422, 422)
    assert refused.json()["errors"][0]["loc"] == ["segments", 0, "decoding", "top_p"]
    assert (shown["origin"], shown["version"]) == ("file", 0)


@asynchronous
async def test_the_policies_file_is_followed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(yaml.safe_dump(ONE))
    async with serving(operator=True, policies=file) as service:
        broken = tmp_path / "broken"
        broken.write_text("segments: [")
        broken.replace(file)
        other = tmp_path / "other"
        other.write_text(yaml.safe_dump({**ONE, "segments": [{**ALL, "name": "some"}], "default": "some"}))

        async def looked() -> bool:
            return not service.runtime.space.policy_keeper.watched.changed()

        await eventually(looked, within_s=20.0)
        assert (await service.recommend(events=[{"item_id": "1"}]))["segment"] == "all"
        other.replace(file)

        async def followed() -> bool:
            return bool((await service.recommend(events=[{"item_id": "1"}]))["segment"] == "some")

        await eventually(followed, within_s=20.0)
