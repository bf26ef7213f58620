"""What Redis stores in: its memory is full, its disk is full, it is put back to an older copy of itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    OPS,
    PATIENT,
    Serve,
    T,
    eventually_rung,
    history,
    ids,
    items_of,
    post,
    recommend,
    serve,
)
from tests.support.valkey import TcpValkey


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@contextmanager
def served(artifact: Path, folder: Path, **options: Any) -> Iterator[tuple[Serve, TcpValkey]]:
    """A service, and its Redis."""
    with (
        TcpValkey(folder / "redis", **options) as redis,
        serve(folder, "--artifact", str(artifact), "--redis", redis.url, **PATIENT) as service,
    ):
        yield service, redis


def kept(service: Serve, user: str) -> list[str]:
    return [str(one["item_id"]) for one in history(service, user)]


def eventually_status(service: Serve, user: str, item: str, status: int, start_ms: int) -> int:
    """Sends other events until one is answered so; returns how many were accepted."""
    until, accepted = time.monotonic() + 20.0, 0
    for n in range(100_000):
        found = post(service, user, item, start_ms=start_ms + n).status_code
        assert found in (200, 503)
        accepted += found == 200
        if found == status:
            return accepted
        assert time.monotonic() < until
    raise AssertionError


def listed(service: Serve, user: str) -> list[str]:
    """What the model lists, without chance."""
    eventually_rung(service, user, "full")
    answer = recommend(service, user_id=user, decoding={"strategy": "beam"})
    assert (answer["rung"], answer["reason"]) == ("full", None)
    return ids(answer)


def test_a_redis_without_memory_refuses_events_and_lists_come_as_ever(artifact: Path, tmp_path: Path) -> None:
    """Nothing is half written, and who wants to be forgotten is."""
    items = items_of(artifact)
    with served(artifact, tmp_path) as (service, redis):
        assert post(service, "u1", *items[:6]).status_code == 200
        before = listed(service, "u1")
        assert post(service, "gone", items[0]).status_code == 200
        redis.fill_memory()
        for user in ("u1", "new"):
            assert post(service, user, items[7], items[8], start_ms=T + 60_000).status_code == 503
        assert listed(service, "u1") == before
        assert recommend(service, user_id="new")["rung"] == "full"
        assert (kept(service, "u1"), kept(service, "new")) == (items[:6], [])
        assert service.client.delete("/users/gone", headers=OPS).json()["deleted"] >= 2
        redis.free_memory()
        assert post(service, "u1", items[7], items[8], start_ms=T + 60_000).json()["accepted"] == 2
        assert kept(service, "u1") == [*items[:6], items[7], items[8]]
        assert eventually_rung(service, "u1", "full")["reason"] is None


def test_a_full_disk_under_the_append_only_file_refuses_events_and_loses_none(artifact: Path, tmp_path: Path) -> None:
    """The disk is a small one of the server's own. Once there is room, what was accepted meanwhile is written."""
    unshare = ("unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
    try:
        subprocess.run(unshare, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    items = items_of(artifact)
    with served(artifact, tmp_path, fsync="everysec", disk_mib=4) as (service, redis):
        assert post(service, "u1", *items[:6]).status_code == 200
        eventually_rung(service, "u1", "full")
        redis.fill_disk()
        accepted = eventually_status(service, "u1", items[7], 503, T + 60_000)
        answer = recommend(service, user_id="u1", exclude_seen=False)
        assert (answer["source"], answer["reason"]) == ("gpt4rec", None)
        assert len(kept(service, "u1")) == 6 + accepted
        redis.free_disk()
        accepted += eventually_status(service, "u1", items[8], 200, T + 120_000)
        assert len(kept(service, "u1")) == 6 + accepted


def test_a_redis_put_back_to_an_older_copy_is_served_as_it_is(artifact: Path, tmp_path: Path) -> None:
    """Nothing of the lost future is used: not what the process kept, nor a state that has seen more than the log; also
    where the history then takes another way."""
    items = items_of(artifact)
    with served(artifact, tmp_path) as (service, redis):
        assert post(service, "u1", *items[:6]).status_code == 200
        then = listed(service, "u1")
        redis.copy(tmp_path / "copy")
        assert post(service, "u1", *items[6:9], start_ms=T + 60_000).status_code == 200
        assert listed(service, "u1") != then

        redis.kill9()
        redis.restore(tmp_path / "copy")
        redis.start()
        assert listed(service, "u1") == then
        assert kept(service, "u1") == items[:6]

        assert post(service, "other", *items[:6]).status_code == 200
        for user in ("u1", "other"):
            assert post(service, user, *items[9:11], start_ms=T + 60_000).status_code == 200
        assert kept(service, "u1") == kept(service, "other") == [*items[:6], *items[9:11]]
        assert listed(service, "u1") == listed(service, "other")
