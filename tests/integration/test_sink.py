"""The sink on a real Valkey: each entry is in the files once, whatever fails in between."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from deploy.loop.sink.batch_writer import BatchWriter, id_of, spans_of
from deploy.loop.sink.hand import Taken
from deploy.loop.sink.live_outcomes import LiveOutcomes
from loadtests.loop import sink_faults
from model.online.log_schema import LogError
from service.experiments.outcomes import Outcomes, Place, by_group, of_arms, unpacked
from service.experiments.outcomes import packed as packed_outcomes
from service.experiments.sums import Sums
from service.exposures.exposure import erased_entry, merged_entry, packed
from service.intake.records import DeliveryFailed
from service.metrics.service_metrics import value_of
from service.store.outcome_fields import OutcomeFields
from service.store.streams.log_streams import Shard
from service.store.streams.stream_group import BEGINNING, StreamEntry
from tests.support.aio import asynchronous
from tests.support.sink_world import HOUR_MS, NOW_MS, SHARD, running, shown, until, world
from tests.support.valkey import Valkey


@asynchronous
async def test_a_batch_that_was_written_but_not_acknowledged_is_not_written_again(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        names = [f"l{n}" for n in range(9)]
        # Two hours, so that a batch has two files.
        await here.append(*(shown(one, NOW_MS - HOUR_MS * (n % 2)) for n, one in enumerate(names[:6])))
        group = here.new_group("here/0")
        page = (await group.read({SHARD: ">"}, 4))[SHARD]
        assert not isinstance(page, Exception)
        BatchWriter(here.log, here.metrics, here.erased).write({SHARD: [Taken(one, again=False) for one in page]})
        assert len(here.lists()) == 4
        # It is gone: half of one of its batches is in other batches now.
        here.log.remove(here.log.paths("exposures")[0])
        await group.close()
        await here.append(*map(shown, names[6:]))
        await here.once(entries=3)
        assert here.lists() == names
        assert (here.counted("repeated"), await here.pending()) == (2, 0)


@asynchronous
async def test_a_folder_that_cannot_be_written_is_waited_for_and_nothing_is_lost(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(*(shown(f"l{n}") for n in range(5)))
        write, full = here.log.write, asyncio.Event()

        def refused(*_: Any) -> list[str]:
            full.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

        here.log.write = refused  # type: ignore[method-assign, assignment]
        sink = here.sink()
        async with running(sink):
            await until(full.is_set)
            await until(lambda: value_of(here.metrics.holding))
            assert await here.pending() == 5
            here.log.write = write  # type: ignore[method-assign]
            await until(lambda: not value_of(here.metrics.holding) and len(here.lists()) == 5)
        assert await here.pending() == 0


@asynchronous
async def test_a_stop_that_cannot_write_leaves_the_batch_to_the_next(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path / "file" / "log") as here:
        (tmp_path / "file").write_text("no folder")
        await here.append(shown("a"))
        sink = here.sink()
        async with running(sink):
            await until(lambda: sink.failing_since)
        (tmp_path / "file").unlink()
        await here.once()
        assert here.lists() == ["a"]


@asynchronous
async def test_flushes_and_keys_of_another_type_are_survived(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(shown("a"))
        sink = here.sink()
        async with running(sink):
            await until(lambda: here.lists() == ["a"])
            key = f"{here.prefix}exposures:{SHARD.number}"
            await here.client.delete(key)  # as a flush does, with the group
            await here.append(shown("b"))
            await until(lambda: here.lists() == ["a", "b"])
            await here.client.set(key, "strange")
            await until(lambda: sink.failing_since)
            await here.append(shown("c"))  # the service replaces such a key
            await until(lambda: here.lists() == ["a", "b", "c"])


@asynchronous
async def test_what_no_row_can_be_made_of_is_counted_and_another_format_waits_for_its_reader(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        later = ("v", "2", "s", "u:1", "e", shown("new")[5])
        await here.append(
            shown("a"), ("v", "1", "s", "u:1", "e", "{"), later, ("v", "1", "s", "u:1", "e", b'{"list_id": "x"}'),
            ("v", "1", "s", "u:1", "e", b'{"time_ms": 5, "k": "many"}'), shown("b"),
        )  # fmt: skip
        await here.once()
        assert here.lists() == ["a", "b"]
        assert (here.counted("refused"), await here.pending()) == (4, 1)
        (left,) = (await here.group.read({SHARD: BEGINNING}, 10)).values()
        # A version that reads it finds it in no file.
        assert not isinstance(left, Exception)
        spans = spans_of(SHARD, here.log.names("exposures", NOW_MS))
        assert not any(first <= id_of(left[0].id) <= last for first, last in spans)


@asynchronous
async def test_what_is_trimmed_before_it_is_read_again_is_counted(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(shown("a"), shown("b"))
        await here.group.read({SHARD: ">"}, 10)
        await here.append(shown("c"), shown("d"), cap=3)
        await here.once()
        assert (here.lists(), here.counted("gone")) == (["b", "c", "d"], 1)


@asynchronous
async def test_one_sink_reads_and_another_follows_when_it_stops(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        other = here.new_group("elsewhere/2")
        second = here.sink(other)
        async with running(here.sink()):
            await here.append(shown("a"))
            await until(lambda: here.lists() == ["a"])
            stop = asyncio.Event()
            task = asyncio.create_task(second.run(stop))
            await until(lambda: value_of(here.metrics.waiting))
            await here.append(shown("b"))
            await until(lambda: here.lists() == ["a", "b"])
            assert not second.caught_up.is_set()
        await here.append(shown("c"))
        await until(lambda: here.lists() == ["a", "b", "c"])
        stop.set()
        await task
        await other.close()


@asynchronous
async def test_an_erasure_reaches_the_files_also_when_it_is_interrupted(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(shown("a"), shown("b", subject="u:2"), shown("c", NOW_MS - HOUR_MS))
        await here.once()
        await here.append(erased_entry("u:1", NOW_MS + 1), shown("late"), shown("after", NOW_MS + 2))
        await here.once()
        assert here.lists() == ["a", "after", "b", "c"]  # what came late is not written at all
        rewrite, crashed = here.log.rewrite, list[bool]()

        def crashing(*arguments: Any) -> None:
            if not crashed:
                crashed.append(True)
                raise OSError(errno.EIO, "crash")
            rewrite(*arguments)

        here.log.rewrite = crashing  # type: ignore[method-assign, assignment]
        with contextlib.suppress(OSError):
            await here.house().keep(erase=True)
        assert len(here.lists()) == 4
        await here.house().keep(erase=True)
        assert here.lists() == ["after", "b"]
        assert here.log.read_all("erased").rows() == [("u:1", NOW_MS + 1)]
        assert value_of(here.metrics.erasures) == 0


@asynchronous
async def test_a_file_that_cannot_be_read_holds_an_erasure_and_keeps_no_other_file(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(shown("a", NOW_MS - HOUR_MS), shown("b", subject="u:2"), shown("c"))
        await here.once()
        bad = here.log.paths("exposures")[0].rpartition("/")[0] + "/0-foreign.parquet"
        (tmp_path / bad).write_bytes(b"no parquet")
        await here.append(erased_entry("u:1", NOW_MS + 1))
        await here.once()
        with pytest.raises(LogError, match=re.escape(bad)):
            await here.house().keep(erase=True)
        assert value_of(here.metrics.erasures) == 1
        (tmp_path / bad).unlink()
        assert here.lists() == ["b"]
        await here.house().keep(erase=True)
        assert (here.lists(), value_of(here.metrics.erasures)) == (["b"], 0)


@asynchronous
async def test_an_erasure_that_the_streams_lost_reaches_the_files_from_the_list(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        await here.append(shown("a"), shown("b", subject="u:2"))
        await here.once()
        await here.streams.tell_erased([SHARD], erased_entry("u:1", NOW_MS + 1), "u:1", NOW_MS + 1)
        await here.append(shown("c", subject="u:2"), cap=1)  # as when the sink was away for long
        await here.once()
        await here.house().keep(erase=True)
        assert here.lists() == ["a", "b", "c"], "it may still come through the stream"
        house = here.house(later_s=3600.0)
        await house.keep(erase=False, waiting_s=40_000.0)
        assert (here.lists(), await here.listed.read()) == (["a", "b", "c"], {})
        await house.keep(erase=False, waiting_s=3000.0)
        assert here.lists() == ["b", "c"]
        # What comes through the stream leaves the list by itself.
        await here.streams.tell_erased([SHARD], erased_entry("u:2", NOW_MS + 2), "u:2", NOW_MS + 2)
        await here.once()
        await here.house().keep(erase=False)
        assert (await here.listed.read(), len(here.log.read_all("erased"))) == ({}, 2)


@asynchronous
async def test_house_is_kept_although_entries_never_cease(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        acknowledge, n = here.group.acknowledge, itertools.count()

        async def another(ids: Mapping[Shard, Sequence[str]]) -> None:
            await acknowledge(ids)
            await here.append(shown(f"l{next(n)}"))

        here.group.acknowledge = another  # type: ignore[method-assign]
        await here.append(shown("first"))
        sink = here.sink(seconds=0.001)
        async with running(sink):
            house = asyncio.create_task(here.house(later_s=HOUR_MS / 1000.0).run(sink.caught_up, 0.01, erase_now=True))
            await here.append(erased_entry("u:1", NOW_MS + 1))
            await until(lambda: len(here.log.read_all("erased")) and not value_of(here.metrics.erasures))
            await until(lambda: "first" not in here.lists())
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)


@asynchronous
async def test_hours_older_than_the_retention_are_deleted_but_for_erasures(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        old = NOW_MS - 3 * 24 * HOUR_MS
        await here.append(shown("old", old), shown("new"), erased_entry("u:9", old))
        await here.once()
        await here.house(days=2).keep(erase=False)
        assert here.lists() == ["new"]
        assert len(here.log.read_all("erased")) == 1
        assert value_of(here.metrics.removed) == 1


@asynchronous
async def test_live_outcomes_are_shared_by_arm_and_resume_from_the_files(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        shared = OutcomeFields(here.group.link, prefix=here.prefix, timeout_s=5.0)

        def live() -> LiveOutcomes:
            return LiveOutcomes(here.log, shared, here.metrics, open_most=100, open_ms=24 * HOUR_MS)

        body = {
            "list_id": "a", "time_ms": NOW_MS, "items": ["1", "2"], "arms": {"ranker": "b"}, "model_version": "m",
        }  # fmt: skip
        event = {
            "item_id": "2", "type": "click", "time_ms": NOW_MS, "received_ms": NOW_MS, "event_id": "e", "list_id": "a",
        }  # fmt: skip
        await here.append(("v", "1", "s", "u:1", "e", orjson.dumps(body)))
        await here.append(*2 * [("v", "1", "s", "u:1", "e", orjson.dumps(event))], shard=Shard("events", SHARD.number))
        first = live()
        await here.sink(once=True, live=first).run(asyncio.Event())
        await first.turn(settle_s=0.0)
        await first.show()
        wanted = Sums(subjects=1, lists=1, clicked=1, lists2=1, clicked2=1, cross=1)
        assert of_arms(unpacked(await shared.read()), "ranker", since_s=NOW_MS / 1000)["b"].sums == wanted
        assert value_of(here.metrics.click_through, "model", "m") == 1.0
        assert value_of(here.metrics.lists, "position", "2") == 1.0
        assert (value_of(here.metrics.events, "named"), value_of(here.metrics.events, "duplicate")) == (1, 1)
        again = live()
        again.read_log()
        assert again.figures() == first.figures()
        # What a reader that died had been given is read from the files, and from the stream again.
        again.feed(SHARD, [StreamEntry("1-1", {"v": b"1", "s": b"u:1", "e": orjson.dumps(body)})])
        await again.turn()
        assert again.figures() == first.figures()


@asynchronous
async def test_what_counts_no_more_leaves_the_shared_figures(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with world(shared_valkey, tmp_path) as here:
        shared = OutcomeFields(here.group.link, prefix=here.prefix, timeout_s=5.0)

        def live() -> LiveOutcomes:
            return LiveOutcomes(here.log, shared, here.metrics, open_most=10**4, open_ms=24 * HOUR_MS)

        def lists(segment: int, subject: str, number: int) -> list[StreamEntry]:
            bodies = [
                {"list_id": f"{subject}-{segment}-{one}", "time_ms": NOW_MS, "items": ["1"], "segment": f"s{segment}"}
                for one in range(number)
            ]
            return [StreamEntry("1-1", {"v": b"1", "s": subject.encode(), "e": orjson.dumps(body)}) for body in bodies]

        async def by_segment() -> dict[str, int]:
            found = by_group(unpacked(await shared.read()), "segment")
            return {group: one.sums.lists for group, one in found.items()}

        long_ago = f"{NOW_MS // (24 * HOUR_MS) - 5}|segment|s0"
        await shared.write({long_ago: packed_outcomes({Place(0, "segment", "s0"): Outcomes()})["0|segment|s0"]})
        first = live()
        for segment in range(20):
            first.feed(SHARD, lists(segment, "u:1", 1))
        await first.turn()
        await first.show()
        assert (await by_segment())["s19"] == 1
        for segment in range(20, 40):  # larger ones push them out of the twenty that are shown
            first.feed(SHARD, lists(segment, "u:2", 2))
        await first.turn()
        await first.show()
        assert await by_segment() == {"s0": 0, "(other)": 20} | {f"s{segment}": 2 for segment in range(20, 40)}
        gone = StreamEntry("2-1", {"v": b"1", "s": b"u:2", "erased": str(NOW_MS + 1).encode()})
        first.feed(SHARD, [gone])
        await first.turn()
        await first.show()
        assert await by_segment() == {"s0": 0} | {f"s{segment}": 1 for segment in range(20)}
        # What a process before this one showed, and the log has no more, goes too; days that are over stay.
        again = live()
        again.read_log()
        await again.show()
        assert list(await shared.read()) == [long_ago]


@asynchronous
async def test_a_sink_that_stands_by_shows_no_figures_and_has_all_when_it_takes_over(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        other = here.new_group("elsewhere/2")
        shared = OutcomeFields(here.group.link, prefix=here.prefix, timeout_s=5.0)
        live = LiveOutcomes(here.log, shared, here.metrics, open_most=100, open_ms=24 * HOUR_MS)
        following = asyncio.create_task(live.run())
        try:
            async with running(here.sink(seconds=0.05)):
                await here.append(shown("a"))
                await until(lambda: here.lists() == ["a"])
                async with running(here.sink(group=other, live=live)):
                    await until(lambda: value_of(here.metrics.waiting))
                    await here.append(shown("b"))
                    await until(lambda: here.lists() == ["a", "b"])
                    assert (live.figures(), await shared.read()) == ({}, {})
            async with running(here.sink(group=other, live=live)):
                await until(lambda: value_of(here.metrics.lists, "all", "all") == 2)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await other.close()


class FakeTopic:
    """A topic that refuses once."""

    def __init__(self) -> None:
        self.lists: list[Any] = []
        self.erased: dict[str, int] = {}
        self.refuses = True

    async def forward(self, exposures: Sequence[Mapping[str, Any]]) -> int:
        if self.refuses:
            self.refuses = False
            raise DeliveryFailed("the brokers are away")
        self.lists += exposures
        return len(exposures)

    async def erase(self, erased: Mapping[str, int]) -> int:
        self.erased |= erased
        return len(erased)


@asynchronous
async def test_lists_are_copied_to_a_topic_before_they_are_acknowledged_and_erased_there(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with world(shared_valkey, tmp_path) as here:
        topic = FakeTopic()
        drawn = packed(np.array([7, 9]), np.array([0.5, 0.25], np.float32))
        await here.append((*shown("a"), "c", drawn), shown("b"))
        page = (await here.group.read({SHARD: ">"}, 1))[SHARD]
        assert not isinstance(page, Exception)
        # Its reader wrote the file, and died before the list was in the topic.
        BatchWriter(here.log, here.metrics, here.erased).write({SHARD: [Taken(one, again=False) for one in page]})
        await here.sink(once=True, topic=topic).run(asyncio.Event())
        assert (here.lists(), await here.pending()) == (["a", "b"], 0)
        assert [(one["subject"], one["list_id"]) for one in topic.lists] == [("u:1", "a"), ("u:1", "b")]
        assert topic.lists[0]["candidates"].tolist() == [7, 9]
        await here.append(erased_entry("u:1", NOW_MS + 1))
        await here.append(merged_entry("s:2", "u:1", NOW_MS), shard=Shard("events", SHARD.number))
        await here.once()
        await here.house(topic=topic).keep(erase=True)
        assert topic.erased == {"s:2": NOW_MS, "u:1": NOW_MS + 1}
        assert (here.lists(), len(here.log.read_all("merges"))) == ([], 0)


def test_nothing_is_lost_when_sink_and_service_are_killed_and_joined_outcomes_equal_plain_loops(
    random_artifact: Path,
) -> None:
    found = sink_faults.run(random_artifact, rounds=1, lists=30, events=400, stop=False)
    assert (found.lost, found.twice, found.differ, found.unfinished, found.uncounted) == (0, 0, 0, 0, 0)
    assert len(found.acknowledged) > 100
    assert len(found.answered) == 20
    assert found.outcomes > 100
