"""Experiments in services whose parts can be looked at: arms, canaries, promotions, and what operators are told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from redis.asyncio import Redis

from service.engine.engine import Engine
from service.experiments.counts import Counts
from service.experiments.outcomes import DAY_S, Outcomes, Place, packed
from service.experiments.sums import Sums
from service.schemas.ops_answers import ExperimentAnswer, ExperimentsAnswer, PlannedAnswer
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

OTHER = {"segments": [{"name": "other", "when": {}, "decoding": {"strategy": "greedy"}}], "default": "other"}
KEYS = "shop:plain-secret,desk:desk-secret:users"


@pytest.fixture(scope="module")
def made(two_versions: tuple[Path, Path]) -> tuple[Path, Path]:
    return two_versions


@asynccontextmanager
async def served(artifact: Path, redis_url: str | None, prefix: str, **more: Any) -> AsyncIterator[Service]:
    engine = cast("FakeEngine", Engine.open(artifact, device="cpu", threads=1))
    quick = {"deadline_max_ms": 2000.0, "catch_up_timeout_ms": 100.0, "mode_poll_ms": 50.0, "history_cap": 400}
    settings = {"artifact": artifact, "device": "cpu", "operator": True, **quick, **more}
    async with serving(engine, redis_url=redis_url, prefix=prefix, **settings) as service:
        yield service


def spec(model: str, **more: Any) -> dict[str, Any]:
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "model": model}]
    return {"name": "which", "arms": arms, **more}


async def start(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = await service.client.post("/ops/experiments", json=body)
    assert answer.status_code == 200, answer.text
    return ExperimentAnswer.model_validate(answer.json()).model_dump()


async def shown(service: Service) -> ExperimentsAnswer:
    return ExperimentsAnswer.model_validate((await service.client.get("/ops/experiments")).json())


async def arms_of(service: Service, users: int = 40) -> dict[str, tuple[dict[str, str], str]]:
    answers = [await service.recommend(user_id=f"u{i}") for i in range(users)]
    return {str(a["user_id"]): (a["arms"], a["model_version"]) for a in answers}


@asynchronous
async def test_arms_are_the_same_on_every_replica_and_the_model_of_an_arm_answers(
    made: tuple[Path, Path], shared_valkey: Valkey
) -> None:
    old, new = made
    body = spec(new.name)
    async with (
        served(old, shared_valkey.url, "sticky:") as one,
        served(old, shared_valkey.url, "sticky:") as two,
    ):
        planned = await one.client.post("/ops/experiments?dry_run=true", json=body)
        would = PlannedAnswer.model_validate(planned.json())
        assert any(new.name in sentence and "MiB" in sentence for sentence in would.would) and not would.refused
        assert not (await shown(one)).experiments
        await start(one, {**body, "reason": "a test"})

        async def followed() -> bool:
            held = (await shown(two)).memory["held"]
            return new.name in held and bool(two.runtime.space.experiments.document.running)

        await eventually(followed, within_s=20.0)
        here = await arms_of(one)
        assert await arms_of(two) == here
        assert {(arms["which"], version) for arms, version in here.values()} == {("old", old.name), ("new", new.name)}
        await one.settled()
        recorded = await exposures(shared_valkey, "sticky:")
        assert recorded and all(r["arms"] == here[r["subject"].removeprefix("u:")][0] for r in recorded)

        stopped = await two.client.post("/ops/experiments/which/stop", json={"reason": "seen enough"})
        assert stopped.json()["state"] == "stopped"
        await eventually(lambda: _ended(one), within_s=20.0)
        assert {version for _, version in (await arms_of(one, 5)).values()} == {old.name}
        audit = (await one.client.get("/ops/audit")).json()["entries"]
        assert [entry["text"] for entry in audit[:2]] == [
            "experiment which: stopped: seen enough",
            "experiment which: started (arms ['old', 'new']): a test",
        ]


async def exposures(valkey: Valkey, prefix: str) -> list[dict[str, Any]]:
    """What was recorded of the lists."""
    async with Redis.from_url(valkey.url) as redis:
        found: list[Any] = [await redis.xrange(f"{prefix}exposures:{shard}") for shard in range(8)]
    return [orjson.loads(fields[b"e"]) for entries in found for _, fields in entries]


async def _ended(service: Service) -> bool:
    return not service.runtime.space.experiments.document.running


@asynchronous
async def test_an_arm_has_policies_and_can_be_forced_by_who_may(made: tuple[Path, Path], shared_valkey: Valkey) -> None:
    arms = [{"name": "old", "share": 0.5}, {"name": "other", "share": 0.5, "policies": OTHER}]
    async with served(made[0], shared_valkey.url, "forced:", api_keys=KEYS) as service:
        await start(service, {"name": "how", "arms": arms})
        found = [await service.recommend(user_id=f"u{i}") for i in range(20)]
        assert {(a["arms"]["how"], a["segment"] == "other") for a in found} == {("old", False), ("other", True)}
        events = [{"item_id": "i1"}]
        forced = await service.recommend(events=events, arm={"how": "other"})
        assert (forced["arms"], forced["segment"]) == ({"how": "other"}, "other")
        body = {"events": events, "arm": {"how": "other"}}
        statuses = [
            (await service.client.post("/recommend", json=body, headers={"Authorization": f"Bearer {key}"})).status_code
            for key in ("plain-secret", "desk-secret")
        ]
        assert statuses == [403, 200]
        unknown = await service.client.post("/recommend", json={"events": events, "arm": {"how": "best"}})
        assert unknown.status_code == 422 and "there are: old, other" in unknown.text
        await service.runtime.space.canaries.look()
        report = (await service.client.get("/ops/experiments/how")).json()
        assert sum(arm["answers"] for arm in report["arms"]) == 20  # forced lists count for no arm

        promoted = await service.client.post("/ops/experiments/how/promote", json={"arm": "other"})
        assert promoted.json()["state"] == "promoted", promoted.text
        answer = await service.recommend(events=events)
        assert (answer["arms"], answer["segment"]) == ({}, "other")


@asynchronous
async def test_the_hold_out_keeps_its_model_whatever_is_activated(
    made: tuple[Path, Path], shared_valkey: Valkey
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "holdout:") as service:
        put = await service.client.put("/ops/holdout", json={"share": 0.3, "model": old.name})
        assert put.status_code == 200, put.text
        await start(service, spec(new.name))
        promoted = await service.client.post("/ops/experiments/which/promote", json={"arm": "new"})
        assert promoted.status_code == 200, promoted.text

        async def held() -> bool:
            return old.name in (await shown(service)).memory["held"]

        await eventually(held, within_s=20.0)
        versions = {user: version for user, (_, version) in (await arms_of(service)).items()}
        assert set(versions.values()) == {old.name, new.name}
        assert 2 <= list(versions.values()).count(old.name) <= 25
        await service.client.delete("/ops/holdout")
        assert {version for _, version in (await arms_of(service)).values()} == {new.name}


@asynchronous
async def test_what_does_not_fit_the_memory_or_the_layer_is_refused_by_name(made: tuple[Path, Path]) -> None:
    old, new = made
    async with served(old, None, "small:", models_held_mib=0.01) as service:
        refused = await service.client.post("/ops/experiments", json=spec(new.name))
        assert refused.status_code == 422
        assert "GPT4REC_MODELS_HELD_MIB" in refused.text and new.name in refused.text
        planned = (await service.client.post("/ops/experiments?dry_run=true", json=spec(new.name))).json()
        assert new.name in planned["refused"][0]
        missing = await service.client.post("/ops/experiments", json=spec("nowhere"))
        assert missing.status_code == 404 and "nowhere" in missing.text
        await start(service, {**spec(old.name), "share": 0.6})  # the model in service is not held twice
        full = await service.client.post("/ops/experiments", json={**spec(old.name), "name": "more", "share": 0.6})
        assert full.status_code == 409 and "which has the others" in full.text
        strange = {"name": "more", "layer": "l", "arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}
        strange["arms"][1]["ranker"] = "nobody"  # type: ignore[index]
        unknown = await service.client.post("/ops/experiments", json=strange)
        assert unknown.status_code == 422 and "no ranker weights nobody" in unknown.text


@asynchronous
async def test_a_canary_grows_by_steps_and_goes_back_by_itself(made: tuple[Path, Path], shared_valkey: Valkey) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "canary:") as service:
        body = spec(new.name, steps=[0.2, 1.0], step_lists=50, guardrails={})
        run = (await start(service, body))["run"]
        watch, store = service.runtime.space.canaries, service.runtime.space.store
        few = {user: arms for user, (arms, _) in (await arms_of(service, 60)).items() if arms}
        assert 3 <= len(few) <= 24
        await Counts(store).add(run, {("old", "answers"): 60, ("new", "answers"): 60})
        await watch.look()
        report = (await service.client.get("/ops/experiments/which")).json()
        assert (report["step"], report["portion"], report["state"]) == (2, 1.0, "running")
        more = {user: arms for user, (arms, _) in (await arms_of(service, 60)).items()}
        assert all(more.values()) and few.items() <= more.items()
        # The sink says that the new arm gets half the clicks.
        good, bad = Sums(700, 1000, 200, 1900, 250, 330), Sums(700, 1000, 90, 1900, 120, 150)
        day = int(time.time()) // DAY_S
        earned = {f"which={arm}": Outcomes(sums) for arm, sums in (("old", good), ("new", bad))}
        await store.outcomes.write(packed({Place(day, "arm", group): one for group, one in earned.items()}))
        watch._clock = lambda: time.monotonic() + 60.0
        await watch.look()
        report = ExperimentAnswer.model_validate((await service.client.get("/ops/experiments/which")).json())
        assert report.state == "returned" and "click-through of the arm new" in str(report.cause)
        comparison = report.arms[1].comparison
        assert comparison is not None and comparison.high is not None and comparison.high < 0.0
        assert comparison.p < 0.05 < report.shares_p
        assert {version for _, version in (await arms_of(service, 20)).values()} == {old.name}


@asynchronous
async def test_a_canary_whose_model_fails_is_back_after_a_few_lists(
    made: tuple[Path, Path], shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "failing:") as service:
        await start(service, spec(new.name, guardrails={}))
        broken = service.runtime.space.experiments.held.get(new.name)
        assert broken is not None
        monkeypatch.setattr(
            broken.decoder, "_engine_run", lambda jobs: [RuntimeError("nothing comes out") for _ in jobs]
        )
        lists = 0
        while service.runtime.space.experiments.document.running and lists < 200:
            await service.recommend(user_id=f"u{lists}")
            await service.runtime.space.canaries.look()
            lists += 1
        cause = str(service.runtime.space.experiments.named("which").cause)
    assert lists < 60 and "failed" in cause, cause


def shadow(model: str, **more: Any) -> dict[str, Any]:
    return {"name": "behind", "kind": "shadow", "arms": [{"name": "next", "model": model}], **more}


async def shadowed(service: Service, n: int) -> dict[str, Any]:
    """The report of the shadow once so many requests are counted."""

    async def counted() -> bool:
        await service.runtime.space.canaries.look()
        told = (await service.client.get("/ops/experiments/behind")).json()["shadow"]["requests"]
        return int(sum(told.values())) >= n

    await eventually(counted, within_s=20.0)
    report = ExperimentAnswer.model_validate((await service.client.get("/ops/experiments/behind")).json())
    assert report.shadow is not None
    return report.shadow.model_dump()


@asynchronous
async def test_a_shadow_is_compared_with_what_was_shown_and_leaves_no_trace(
    made: tuple[Path, Path], shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made
    asked: dict[str, Any] = {"decoding": {"strategy": "greedy"}, "k": 5}
    users = [f"u{i}" for i in range(6)]
    async with served(old, shared_valkey.url, "shadow:") as service:
        for user in users[:3]:
            await service.post_events(user, "i1", "i2", user.replace("u", "i"))
        await service.settled()
        before = await names(shared_valkey, "shadow:")
        await start(service, shadow(new.name))
        monkeypatch.setattr(service.runtime.space.shadows, "_busy", lambda: False)  # however slow this machine is
        answers = [await service.recommend(user_id=user, **asked) for user in users]
        told = await shadowed(service, len(users))
        assert {(a["model_version"], a["rung"], str(a["arms"])) for a in answers} == {(old.name, "full", "{}")}
        assert told["requests"] == {"compared": 6, "dropped": 0, "busy": 0, "skipped": 0, "failed": 0}
        assert 0.0 < told["candidate_ms"]["p50"] <= told["candidate_ms"]["p95"] and told["shown_ms"]["mean"] > 0.0
        await service.settled()
        lists = [one for one in await exposures(shared_valkey, "shadow:") if one["model_version"] == new.name]
        assert not lists
        added = {name.split(":")[-1] for name in await names(shared_valkey, "shadow:") - before}
        assert not any("state" in name for name in added), added
        metrics = (await service.client.get("/metrics")).text
        assert 'gpt4rec_shadow_requests_total{experiment="behind",outcome="compared"} 6.0' in metrics
        planned = await service.client.post("/ops/experiments/behind/promote?dry_run=true", json={"arm": "next"})
        would = PlannedAnswer.model_validate(planned.json()).would
        assert [sentence.split()[:2] for sentence in would] == [["activate", "the"], ["end", "the"]]
        assert service.runtime.space.model.version == old.name
        promoted = await service.client.post("/ops/experiments/behind/promote", json={"arm": "next"})
        assert promoted.json()["state"] == "promoted", promoted.text
        assert 'experiment="behind"' not in (await service.client.get("/metrics")).text
        later = [await service.recommend(user_id=user, **asked) for user in users]
    shares = [len({*items(a)} & {*items(b)}) / 5 for a, b in zip(answers, later, strict=True)]
    assert told["overlap"] == pytest.approx(sum(shares) / 6, abs=1e-6)
    assert told["same_first"] == sum(items(a)[0] == items(b)[0] for a, b in zip(answers, later, strict=True)) / 6


def items(answer: Mapping[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def names(valkey: Valkey, prefix: str) -> set[str]:
    async with Redis.from_url(valkey.url) as redis:
        return {key.decode() async for key in redis.scan_iter(f"{prefix}*")}


async def busy_while_a_list_is_made(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    space, go = service.runtime.space, threading.Event()
    run = space.model.decoder._engine_run
    with monkeypatch.context() as patched:
        patched.setattr(space.model.decoder, "_engine_run", lambda jobs: (go.wait(20.0), run(jobs))[1])
        patched.setattr(space.shadows, "_shadows", ())
        asked = asyncio.create_task(service.recommend(user_id="u0"))

        async def busy() -> bool:
            return space.shadows._busy()

        await eventually(busy, within_s=20.0)
        go.set()
        await asked


@asynchronous
async def test_a_shadow_runs_in_spare_time_only_and_its_failures_are_nobodys(
    made: tuple[Path, Path], shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "spare:") as service:
        space = service.runtime.space
        await start(service, shadow(new.name))
        candidate = space.experiments.held.get(new.name)
        assert candidate is not None
        await busy_while_a_list_is_made(service, monkeypatch)
        decode = candidate.engine.decode
        monkeypatch.setattr(candidate.engine, "decode", lambda _: pytest.fail("it ran while the engine was busy"))
        monkeypatch.setattr(space.shadows, "_busy", lambda: True)
        monkeypatch.setattr(space.shadows, "_clock", lambda: 0.0)
        answers = [await service.recommend(user_id=f"u{i}") for i in range(36)]
        assert {a["rung"] for a in answers} == {"full"}
        monkeypatch.setattr(space.shadows, "_clock", lambda: 5.0)
        told = await shadowed(service, 36)
        # One is in hand, and 32 wait behind it.
        assert told["requests"] == {"compared": 0, "dropped": 3, "busy": 33, "skipped": 0, "failed": 0}
        assert told["overlap"] is None
        monkeypatch.setattr(space.shadows, "_busy", lambda: False)
        monkeypatch.setattr(candidate.engine, "decode", lambda jobs: [RuntimeError("nothing") for _ in jobs])
        assert (await service.recommend(user_id="u1"))["rung"] == "full"
        assert (await shadowed(service, 37))["requests"]["failed"] == 1
        monkeypatch.setattr(candidate.engine, "decode", decode)
        await service.recommend(user_id="u1", segment="active", filter={"category": ["nothing has it"]})
        await service.recommend(user_id="u1")
        assert (await shadowed(service, 39))["requests"] == {
            "compared": 1, "dropped": 3, "busy": 33, "skipped": 1, "failed": 1,
        }  # fmt: skip
        assert space.guard.status()["budgets"]["attempts"]["late_or_failed"] == 0
        assert not list(space.guards.beside())


@asynchronous
async def test_every_change_is_shown_before_it_is_made(made: tuple[Path, Path], shared_valkey: Valkey) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "dry:") as service:

        async def would(method: str, path: str, body: Any = None) -> list[str]:
            answer = await service.client.request(method, f"/ops/{path}?dry_run=true", json=body)
            assert answer.status_code == 200, answer.text
            return PlannedAnswer.model_validate(answer.json()).would

        canary = spec(new.name, steps=[0.1, 1.0], guardrails={})
        assert any("go back by itself" in sentence for sentence in await would("POST", "experiments", canary))
        await start(service, canary)
        before = (await service.client.get("/ops/experiments")).json()["version"]
        stop = await would("POST", "experiments/which/stop", {})
        assert "10.00% of the layer default" in stop[0] and stop[1].startswith(f"let go of the model {new.name}")
        assert (await would("POST", "experiments/which/promote", {"arm": "new"}))[0].startswith("activate the model")
        held = await would("PUT", "holdout", {"share": 0.1, "model": old.name})
        assert "10.00% of all subjects" in held[0]
        assert await would("DELETE", "holdout") == ["do nothing: no subject is held out"]
        shown = (await service.client.get("/ops/experiments")).json()
        assert (shown["version"], shown["holdout"], shown["experiments"][0]["state"]) == (before, None, "running")
        missing = await service.client.post("/ops/experiments/nothing/stop?dry_run=true", json={})
        assert missing.status_code == 404


@asynchronous
async def test_an_arm_that_fails_loses_its_model_and_takes_nobody_elses(
    made: tuple[Path, Path], shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made
    async with served(old, shared_valkey.url, "guarded:", breaker_min_attempts=5, breaker_open_s=600.0) as service:
        await start(service, spec(new.name))
        broken = service.runtime.space.experiments.held.get(new.name)
        assert broken is not None
        monkeypatch.setattr(broken.decoder, "_engine_run", lambda jobs: [RuntimeError("nothing") for _ in jobs])
        answers = [await service.recommend(user_id=f"u{i}") for i in range(40)]
        by_arm = {arm: [a for a in answers if a["arms"]["which"] == arm] for arm in ("old", "new")}
        assert {a["rung"] for a in by_arm["old"]} == {"full"}
        reasons = [a["reason"] for a in by_arm["new"]]
        assert set(reasons[:5]) == {"model_error"} and set(reasons[6:]) == {"breaker_open"}
        assert all(len(a["items"]) == 10 for a in answers)
        report = ExperimentAnswer.model_validate((await service.client.get("/ops/experiments/which")).json())
        states = {arm.name: arm.breaker and arm.breaker.state for arm in report.arms}
        assert states == {"old": "closed", "new": "open"}
        metrics = (await service.client.get("/metrics")).text
        assert 'gpt4rec_experiment_model_withheld{arm="new",experiment="which"} 1.0' in metrics
        assert 'gpt4rec_breaker_state{state="closed"} 1.0' in metrics
        stopped = await service.client.post("/ops/experiments/which/stop", json={})
        assert stopped.json()["arms"][1]["breaker"] is None
        assert not list(service.runtime.space.guards.beside())
