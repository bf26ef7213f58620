"""One store, whatever stands behind the URL: a server by TCP with a password, a Cluster, a Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.common.errors import SettingsError
from service.coordination.forced_mode import Mode
from service.store.records import NewEvent, Subject
from service.store.redis.redis_client import client_for
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.store.streams.log_streams import STREAMS, Appended, Entry, Shard
from tests.support.aio import asynchronous, eventually
from tests.support.valkey import server

T = 1_700_000_000_000


async def exercise(url: str) -> None:
    """Everything a deployment asks of its server."""
    store = await Store.connect(StoreSettings(url=url, history_cap=3, read_timeout_ms=3000, write_timeout_ms=3000))
    await store.ping()
    people = [Subject("user", f"u{i}") for i in range(12)]
    results = await store.append_many([(one, [NewEvent("a", "click", T)]) for one in people])
    assert [r.accepted for r in results] == [1] * 12
    assert await store.write_state(people[0], "m", results[0].version, b"blob")
    record = await store.read(people[0], "m")
    assert (record.version, record.blob) == (results[0].version, b"blob")
    session = Subject("session", "s")
    await store.append(session, [NewEvent("b", "click", T + 1)])
    assert await store.merge(session, people[0]) == 1
    assert [e.item_id for e in (await store.read(people[0], "m")).events] == ["a", "b"]
    assert await store.erase(people[0]) == 4
    await store.append(session, [NewEvent(str(n), "click", T + n) for n in range(5)])
    assert await store.merge(session, people[1]) == 3
    assert set((await store.read(people[1], "m")).seen.item_ids()) == {"a", "0", "1"}
    shards = [Shard(stream, n) for stream in STREAMS for n in range(8)]
    entry: Entry = ("v", "1", "s", "u:1", "e", "{}")
    assert await store.streams.append([(one, [entry] * 3) for one in shards], cap=2) == [Appended(1, 1)] * 16
    assert await store.streams.erase(shards[0], "u:1") == (2, [])
    assert await store.streams.shard_counts(adding=8) == {8}
    changes = store.shared_changes()
    heard = asyncio.create_task(anext(changes))

    versions = itertools.count(1)

    async def change() -> bool:
        await store.write_shared("mode", next(versions), 1, Mode("fallback").body(), audit=b"{}")
        return heard.done()

    await eventually(change, 10)
    await changes.aclose()
    assert (await store.read_audit(1)) == [b"{}"]
    await store.close()


def test_a_server_by_tcp_with_a_password(tmp_path: Path) -> None:
    with server(tmp_path / "server", "--requirepass", "p@ss") as port:
        asyncio.run(exercise(f"redis://:p%40ss@127.0.0.1:{port}/2"))


def test_a_cluster(tmp_path: Path) -> None:
    with server(tmp_path / "node", "--cluster-enabled", "yes") as port:
        with Redis(port=port, socket_timeout=5) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

            async def formed() -> bool:
                return "cluster_state:ok" in str(node.execute_command("CLUSTER", "INFO")) or "'ok'" in str(
                    node.execute_command("CLUSTER", "INFO")
                )

            asyncio.run(eventually(formed, 10))
        asyncio.run(exercise(f"redis+cluster://127.0.0.1:{port}"))
        with pytest.raises(SettingsError, match="durability aof cannot be had"):  # it has no append-only file
            asyncio.run(Store.connect(StoreSettings(url=f"redis+cluster://127.0.0.1:{port}", durability="aof")))


def test_a_sentinel(tmp_path: Path) -> None:
    with server(tmp_path / "server") as port:
        folder = tmp_path / "conf"
        folder.mkdir()
        config = folder / "sentinel.conf"
        config.write_text(f"sentinel monitor shop 127.0.0.1 {port} 1\n")
        with server(tmp_path / "sentinel", str(config), "--sentinel") as sentinel:
            asyncio.run(exercise(f"redis+sentinel://127.0.0.1:{sentinel}/shop/0"))


@asynchronous
async def test_a_durability_the_server_cannot_give_is_refused_at_start(tmp_path: Path) -> None:
    def serve() -> tuple[contextlib.ExitStack, int]:
        stack = contextlib.ExitStack()
        return stack, stack.enter_context(server(tmp_path / "server", "--appendonly", "no"))

    stack, port = await asyncio.to_thread(serve)
    with stack, pytest.raises(SettingsError, match="durability aof cannot be had"):
        await Store.connect(StoreSettings(url=f"redis://127.0.0.1:{port}", write_timeout_ms=3000, durability="aof"))


def test_connections_that_lie_idle_notice_that_their_peer_is_gone(tmp_path: Path) -> None:
    """The kernel asks on all that go by TCP; a Unix socket has no way to be silently gone."""
    tcp = client_for("redis://127.0.0.1:6379/0", socket_timeout_s=1.0, max_connections=2)
    unix = client_for(f"unix://{tmp_path}/valkey.sock", socket_timeout_s=1.0, max_connections=2)
    assert isinstance(tcp, AsyncRedis) and isinstance(unix, AsyncRedis)
    kept = tcp.connection_pool.connection_kwargs
    assert kept["socket_keepalive"] is True
    assert sum(kept["socket_keepalive_options"].values()) < 30
    assert "socket_keepalive" not in unix.connection_pool.connection_kwargs
