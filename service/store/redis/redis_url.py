"""The URL of a Redis, parsed. Whatever it says is used or refused by name; nothing in it is dropped.

    redis://[[user]:password@]host:port/db       rediss:// with TLS        unix:///path?db=0
    redis+cluster://host:port[,host:port…]       rediss+cluster:// with TLS
    redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db]      rediss+sentinel:// with TLS

Options follow a `?`: `db`, `username`, `password`, `client_name`, `health_check_interval`, with TLS those of `_TLS`,
and with Sentinel `sentinel_username` and `sentinel_password`, because the Sentinels have users of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from service.common.errors import SettingsError

Kind = Literal["single", "unix", "cluster", "sentinel"]

_SCHEMES: dict[str, tuple[Kind, bool]] = {
    "redis": ("single", False), "rediss": ("single", True), "unix": ("unix", False),
    "redis+cluster": ("cluster", False), "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False), "rediss+sentinel": ("sentinel", True),
}  # fmt: skip

# What the service decides by itself, and the setting to use instead.
_OWN = {
    "socket_timeout": "GPT4REC_REDIS_WRITE_TIMEOUT_MS", "socket_connect_timeout": "GPT4REC_REDIS_WRITE_TIMEOUT_MS",
    "timeout": "GPT4REC_REDIS_WRITE_TIMEOUT_MS", "max_connections": "GPT4REC_REDIS_CONNECTIONS_MAX",
    **dict.fromkeys(
        ("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses", "retry", "retry_on_timeout",
         "retry_on_error", "socket_keepalive", "socket_read_size", "single_connection_client"), "",
    ),
}  # fmt: skip


def _database(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number < 0:
        raise ValueError("a number from 0")
    return number


def _seconds(text: str) -> int:
    return _database(text)


def _flag(text: str) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
    if found is None:
        raise ValueError("true or false")
    return found


def _requirement(text: str) -> str:
    if text not in ("none", "optional", "required"):
        raise ValueError("none, optional or required")
    return text


def _text(text: str) -> str:
    if not text:
        raise ValueError("a text")
    return text


_TLS: dict[str, Callable[[str], Any]] = {
    "ssl_cert_reqs": _requirement, "ssl_check_hostname": _flag,
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"), _text),
}  # fmt: skip
_COMMON: dict[str, Callable[[str], Any]] = {
    "db": _database, "username": _text, "password": _text, "client_name": _text, "health_check_interval": _seconds,
}  # fmt: skip
_SENTINEL: dict[str, Callable[[str], Any]] = {"sentinel_username": _text, "sentinel_password": _text}


@dataclass(frozen=True)
class RedisUrl:
    """What a URL says.

    Attributes:
        kind: A single server by TCP or by a Unix socket, a cluster, or the master behind Sentinels.
        tls: Whether connections use TLS.
        addresses: Host and port of the server, of the nodes or of the Sentinels; none for a Unix socket.
        path: Path of the Unix socket.
        service: Name of the master that the Sentinels monitor.
        options: Options of redis-py for connections to the data: `db`, `username`, `password`, those of TLS.
        sentinel: Options for connections to the Sentinels.
    """

    kind: Kind
    tls: bool
    addresses: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse_url(url: str) -> RedisUrl:
    """Parses the URL of a Redis.

    Raises:
        SettingsError: The URL has another form, or an option that cannot be used. The message quotes no value.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        shown = scheme if rest else "(none)"
        raise SettingsError(
            f"unknown scheme {shown} in the Redis URL: use redis, rediss, unix, redis+cluster or redis+sentinel"
        )
    kind, tls = _SCHEMES[scheme]
    try:
        return _parsed(url, kind, tls=tls)
    except ValueError:
        # The parser's own message may contain a part of the password.
        raise SettingsError(
            "the Redis URL cannot be used: write it as redis://user:password@host:port/0, with special characters of "
            "the password percent-encoded"
        ) from None


def _parsed(url: str, kind: Kind, *, tls: bool) -> RedisUrl:
    parts = urlsplit(url)
    if parts.fragment:
        raise SettingsError("the Redis URL has a # in it: percent-encode it as %23")
    given = _options(parts.query, kind, tls=tls)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    for name, text in (("username", user), ("password", password)):
        if text:
            _set(given, name, unquote(text))
    path, service = unquote(parts.path), ""
    if kind == "unix":
        if not path:
            raise ValueError("the path of the socket is missing")
        return RedisUrl(kind, tls, path=path, options=given)
    database = path.strip("/")
    if kind == "sentinel":
        service, _, database = database.partition("/")
        if not service:
            raise SettingsError(
                "the Redis URL names no service: write redis+sentinel://host:port/SERVICE, with the name that the "
                "Sentinels monitor"
            )
    if database:
        _set(given, "db", _value("db", database, _database))
    if kind == "cluster" and given.pop("db", 0):
        raise SettingsError("the Redis URL names a database, and a cluster has only database 0: remove it")
    own = {name.removeprefix("sentinel_"): given.pop(name) for name in _SENTINEL if name in given}
    shared = {name: value for name, value in given.items() if name in _TLS or name == "client_name"}
    addresses = _addresses(hosts, 26379 if kind == "sentinel" else 6379, several=kind != "single")
    return RedisUrl(kind, tls, addresses, service=service, options=given, sentinel={**shared, **own})


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, Any]:
    known = {**_COMMON, **(_TLS if tls else {}), **(_SENTINEL if kind == "sentinel" else {})}
    given: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if name in _OWN:
            instead = f": use {_OWN[name]} instead" if _OWN[name] else ", because the service sets it itself"
            raise SettingsError(f"the Redis URL must not have the option {name}{instead}")
        if name not in known:
            hint = " (only with rediss)" if name in _TLS else ""
            raise SettingsError(
                f"unknown option {name[:40]!r} in the Redis URL{hint}: known are {', '.join(sorted(known))}"
            )
        _set(given, name, _value(name, text, known[name]))
    return given


def _value(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise SettingsError(f"the Redis URL has a bad {'database' if name == 'db' else name}: give {error}") from None


def _set(given: dict[str, Any], name: str, value: Any) -> None:
    if given.setdefault(name, value) != value:
        raise SettingsError(f"the Redis URL gives {'the database' if name == 'db' else name} twice, and differently")


def _addresses(hosts: str, default_port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    addresses = []
    for address in hosts.split(","):
        parts = urlsplit(f"//{address}")
        if not parts.hostname and (several or address):
            raise ValueError("a host name is missing")
        addresses.append((parts.hostname or "localhost", parts.port or default_port))
    if len(addresses) > 1 and not several:
        raise SettingsError("the Redis URL has several hosts: use redis+cluster or redis+sentinel for them")
    return tuple(addresses)
