"""What the sink reads of experiments that began days ago, when it starts. On a real log and a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from deploy.loop.sink.live_outcomes import LiveOutcomes
from deploy.loop.sink.tallies import DAY_MS, GROUPS_MOST
from model.online.log_schema import frame_of
from service.common.errors import StoreUnavailable
from service.experiments.outcomes import Outcomes, Place, of_arms, packed, unpacked
from service.experiments.sums import Sums
from service.metrics.service_metrics import value_of
from service.store.outcome_fields import OutcomeFields
from tests.support.aio import asynchronous
from tests.support.sink_world import HOUR_MS, World, world
from tests.support.valkey import Valkey

DAYS = 7


def shared_of(here: World) -> OutcomeFields:
    return OutcomeFields(here.group.link, prefix=here.prefix, timeout_s=5.0)


def live_of(here: World, shared: OutcomeFields) -> LiveOutcomes:
    return LiveOutcomes(here.log, shared, here.metrics, open_most=10**4, open_ms=DAY_MS)


def exposure(list_id: str, subject: str, time_ms: int, *experiments: str) -> dict[str, Any]:
    arms = [{"experiment": one, "arm": "b"} for one in experiments]
    return {"list_id": list_id, "subject": subject, "time_ms": time_ms, "items": ["1"], "arms": arms}


def click(list_id: str, subject: str, time_ms: int) -> dict[str, Any]:
    return {
        "event_id": list_id, "list_id": list_id, "subject": subject, "item_id": "1", "type": "click",
        "time_ms": time_ms, "received_ms": time_ms,
    }  # fmt: skip


def damage(file: Path) -> None:
    assert file.stat().st_size
    file.write_bytes(b"no Parquet")


@asynchronous
async def test_subjects_of_experiments_are_known_again_and_older_days_stay(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        rng = np.random.default_rng(19)
        plain: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        lists, events = [], []
        today = int(time.time() * 1000) // DAY_MS
        for day in range(today - DAYS + 1, today + 1):
            for number in range(40):  # one in two has an experiment of its own, as canaries of a loop have
                subject, list_id, at = f"u:{rng.integers(12)}", f"{day}-{number}", day * DAY_MS
                others = [f"loop-{list_id}", f"more-{list_id}"] if number % 2 else []
                lists.append(exposure(list_id, subject, at, "e", *others))
                plain[subject][0] += 1
                if rng.random() < 0.3 and day < today:  # the next morning
                    events.append(click(list_id, subject, at + DAY_MS - 1))
                    plain[subject][1] += 1
            lists.append(exposure(f"none-{day}", "u:none", day * DAY_MS))
            events.append(click("nowhere", f"u:{day}", day * DAY_MS + HOUR_MS))
        here.log.write("exposures", frame_of("exposures", lists), "x")
        here.log.write("events", frame_of("events", events), "x")
        shared = shared_of(here)
        older = [Place(today - 5, "model", "m"), Place(today - 20, "arm", "gone=a"), Place(today - 40, "arm", "e=b")]
        newer = Place(today, "model", "gone")
        await shared.write(packed(dict.fromkeys([*older, newer], Outcomes())))

        live = live_of(here, shared)
        live.read_log()
        await live.turn()
        await live.show()
        found = unpacked(await shared.read())
        wanted = Sums()
        for n, c in plain.values():
            wanted = wanted.with_subject((0, 0), (n, c))
        assert of_arms(found, "e", since_s=(today - 20) * DAY_MS / 1000)["b"].sums == wanted
        # Together they are more than the groups of a day.
        loops = [
            of_arms(found, f"loop-{day}-{n}") for day in range(today - DAYS + 1, today + 1) for n in range(1, 40, 2)
        ]
        assert len(loops) * 2 > GROUPS_MOST and all(one["b"].sums.lists == 1 for one in loops)
        # Of older days experiments alone are written anew, and nothing is taken back.
        assert all(place in found for place in older) and newer not in found
        assert {place.dimension for place in found if place.day < today - 1 and place not in older} == {"arm"}
        assert live.figures()["all", "all"].sums.lists == 2 * 41
        assert live.figures()["arm", "e=b"].sums.lists == 2 * 40
        # Events of the days before were counted when they came.
        assert value_of(here.metrics.events, "late") == 2


@asynchronous
async def test_a_damaged_hour_is_left_out_and_what_redis_lacks_is_written_later(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        today = int(time.time() * 1000) // DAY_MS
        for ago in range(3, -1, -1):
            rows = [exposure(f"l{ago}", "u:1", (today - ago) * DAY_MS, "e")]
            here.log.write("exposures", frame_of("exposures", rows), "x")
        [damaged] = here.log.paths("exposures", from_ms=(today - 2) * DAY_MS, until_ms=(today - 1) * DAY_MS)
        damage(tmp_path / damaged)
        shared = shared_of(here)
        write, calls = shared.write, []

        async def away(*_: Any) -> None:
            calls.append(1)
            raise StoreUnavailable

        shared.write = away  # type: ignore[method-assign, assignment]
        live = live_of(here, shared)
        await asyncio.to_thread(live.read_log)
        for _ in range(2):
            await live.turn()
            await live.show()
        assert len(calls) == 2
        shared.write = write  # type: ignore[method-assign]
        await live.turn()
        await live.show()
        sums = of_arms(unpacked(await shared.read()), "e")["b"].sums
        assert sums == Sums(subjects=1, lists=3, lists2=9)
