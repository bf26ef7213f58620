"""A Redis URL is used as it is, or refused by name; it never shows a secret."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool

from service.common.errors import SettingsError
from service.store.redis.cluster_client import ClusterClient
from service.store.redis.redis_client import client_for
from service.store.redis.redis_url import parse_url

SECRET = "s%C3%A9cret"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h?decode_responses=true", "decode_responses"),
        ("redis+cluster://h?protocol=3", "protocol"),
        ("redis://h?max_connections=3", "GPT4REC_REDIS_CONNECTIONS_MAX"),
        ("unix:///s?socket_timeout=3", "GPT4REC_REDIS_WRITE_TIMEOUT_MS"),
        ("redis://h?nonsense=1", "unknown option 'nonsense'"),
        ("redis+cluster://h?nonsense=1", "unknown option 'nonsense'"),
        ("redis+sentinel://h/shop?nonsense=1", "unknown option 'nonsense'"),
        ("redis://h?ssl_ca_certs=/ca.pem", "only with rediss"),
        ("redis://h?sentinel_password=x", "unknown option 'sentinel_password'"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("redis://h/zero", "database"),
        ("redis://h/-1", "database"),
        ("redis://h/1/2", "database"),
        ("redis://h?db=", "database"),
        ("redis://h/1?db=2", "twice"),
        ("redis+sentinel://h/shop/x", "database"),
        ("redis+cluster://h/1", "database 0"),
        ("redis+sentinel://h", "names no service"),
        ("redis://a,b", "several hosts"),
        ("redis://h/0#x", "%23"),
        ("http://h", "unknown scheme http"),
        ("redis://h:port", "cannot be used"),
        ("unix://", "cannot be used"),
        ("redis+cluster://", "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(url: str, told: str) -> None:
    hidden = url.replace("://", f"://user:{SECRET}@", 1)
    with pytest.raises(SettingsError) as caught:
        client_for(hidden, socket_timeout_s=1.0, max_connections=2)
    assert told in str(caught.value)
    assert SECRET not in str(caught.value) and "sécret" not in str(caught.value)


def _options(url: str) -> tuple[Any, dict[str, Any]]:
    client = client_for(url, socket_timeout_s=1.0, max_connections=2)
    if isinstance(client, ClusterClient):
        return client, client.nodes.options
    return client, client.connection_pool.connection_kwargs


def test_every_option_reaches_the_connections() -> None:
    tls = "ssl_ca_certs=/ca.pem&ssl_check_hostname=no&ssl_cert_reqs=none&client_name=shop&health_check_interval=5"
    for url in ("rediss://u:p%40@h:1/2?", "rediss+cluster://u:p%40@h:1,i:2?", "rediss+sentinel://u:p%40@h:1,i:2/m/2?"):
        _, options = _options(url + tls)
        assert (options["username"], options["password"]) == ("u", "p@")
        assert options["ssl_ca_certs"] == "/ca.pem"
        assert (options["ssl_check_hostname"], options["ssl_cert_reqs"]) == (False, "none")
        assert (options["client_name"], options["health_check_interval"]) == ("shop", 5)
        assert not options.get("decode_responses")
        if "cluster" not in url:
            assert options["db"] == 2


def test_sentinels_have_a_user_and_a_password_of_their_own() -> None:
    client, options = _options("redis+sentinel://u:p@h,i:7/m?sentinel_username=su&sentinel_password=sp&client_name=c")
    assert isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool)
    sentinels = [one.connection_pool.connection_kwargs for one in client.connection_pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in sentinels] == [("h", 26379), ("i", 7)]
    assert all((one["username"], one["password"], one["client_name"]) == ("su", "sp", "c") for one in sentinels)
    assert (options["username"], options["password"]) == ("u", "p")


def test_a_url_shows_no_secret() -> None:
    assert "secret" not in repr(parse_url("redis+sentinel://u:secret@h/m?sentinel_password=secret2"))
