"""TLS, and users with the least rights of the documents, on a Cluster and behind Sentinels of real servers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from loadtests.harness import certificates
from loadtests.harness.redis_cluster import RedisCluster
from loadtests.harness.redis_programs import Program, found
from loadtests.harness.sentinel import SentinelGroup
from loadtests.harness.valkey import TcpValkey
from service.access import rate_limits
from service.common.errors import StoreUnavailable
from service.store.records import NewEvent, Subject
from service.store.redis_rights import SENTINEL_RIGHTS, SINCE_7_2, acl_line
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.integration.test_redis_urls import exercise
from tests.support.aio import asynchronous

pytestmark = pytest.mark.fleet

PREFIX = "gpt4rec:"


@pytest.fixture(scope="module")
def with_tls() -> Program:
    """A server that was built with TLS."""
    servers = [one for one in found().values() if one.tls]
    if not servers or shutil.which("openssl") is None:
        pytest.skip("no server with TLS is installed (redis-server of Debian), or no openssl")
    return servers[0]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("keys") / "tls")


def least(server: TcpValkey, *, cluster: bool, unknown: Collection[str] = ()) -> None:
    """Makes the user of the documents."""
    line = acl_line("gpt4rec", "pw", PREFIX, rate_limits.SCRIPTS, cluster=cluster, unknown=unknown)
    assert server.ask(line.split()) == "OK"


def of_version(program: Program) -> Collection[str]:
    """Returns the commands that a server does not have."""
    return SINCE_7_2 if program.name == "redis-7.0" else ()


def test_a_cluster_with_tls_serves_a_user_of_the_least_rights(tmp_path: Path, with_tls: Program, keys: Path) -> None:
    with RedisCluster(tmp_path, replicas=0, program=with_tls, tls=keys) as cluster:
        for server in cluster.servers:
            least(server, cluster=True, unknown=of_version(with_tls))
        asyncio.run(exercise(cluster.url_for("gpt4rec", "pw")))
        for server in cluster.servers:
            assert not [one for one in server.ask(("ACL", "LOG")) if "gpt4rec" in str(one)]
        strange = cluster.url_for("gpt4rec", "pw").partition("?")[0]  # nobody vouches for the certificate
        with pytest.raises(StoreUnavailable) as refused:
            asyncio.run(_ping(strange))
        assert refused.value.cause == "tls"


@asynchronous
async def test_a_cluster_durability_needs_no_more_rights(tmp_path: Path) -> None:
    """Also where a slot is on its way from one node to another, which takes `ASKING`."""
    cluster = RedisCluster(tmp_path, primaries=2, replicas=1)
    await asyncio.to_thread(cluster.__enter__)
    try:
        for server in cluster.servers:
            least(server, cluster=True)
        url = cluster.url_for("gpt4rec", "pw")
        for durability in ("aof", "replica"):
            settings = StoreSettings(
                url=url, durability=durability, read_timeout_ms=5000, write_timeout_ms=5000, durability_timeout_ms=5000
            )
            store = await Store.connect(settings)
            people = [Subject("user", f"{durability}{n}") for n in range(8)]
            event = NewEvent("i", "click", 1_700_000_000_000)
            assert len(await store.append_many([(one, [event]) for one in people])) == 8
            key = store._calls.keys(people[0], "events")[0]
            source = cluster.primary_of(key)
            target = next(one for one in cluster.servers[:2] if one is not source)
            slot = int(source.ask(("CLUSTER", "KEYSLOT", key)))
            target.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source)))
            source.ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target)))
            # A user without any keys is asked for where the slot goes.
            assert (await store.read_features(Subject("user", f"{durability}0"))).values == {}
            await asyncio.to_thread(cluster.move, [slot], source, target)
            await store.close()
        for server in cluster.servers:
            assert not [one for one in server.ask(("ACL", "LOG")) if "gpt4rec" in str(one)]
    finally:
        cluster.__exit__()


def test_sentinels_with_tls_serve_users_of_the_least_rights(tmp_path: Path, with_tls: Program, keys: Path) -> None:
    with SentinelGroup(tmp_path, sentinels=2, program=with_tls, tls=keys) as group:
        for server in group.servers:
            least(server, cluster=False, unknown=of_version(with_tls))
        for number in range(2):
            rights = [one for one in SENTINEL_RIGHTS.split() if one.lstrip("+") not in of_version(with_tls)]
            assert group.ask("ACL", "SETUSER", "watcher", "on", ">spw", *rights, number=number) == "OK"
        asyncio.run(exercise(group.url_for("gpt4rec", "pw", "watcher", "spw")))


async def _ping(url: str) -> None:
    store = Store(StoreSettings(url=url, write_timeout_ms=5000))
    try:
        await store.ping()
    finally:
        await store.close()
        for _ in range(20):  # a transport whose handshake failed is closed some turns of the loop later
            await asyncio.sleep(0)
