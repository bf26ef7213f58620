"""What a release writes into Redis, as a fixture that later releases read: `tests/contract/formats_of_before.json.gz`.

The fixture was written by the code of the commit that it names. To renew it for a later one:

    git worktree add ../before COMMIT
    PYTHONPATH=../before python tests/support/formats_of_before.py COMMIT tests/contract/formats_of_before.json.gz

The file is run by its path, so that everything it imports is of that checkout.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
CAP = 12  # of the histories in these tests; more events are sent, so that some leave the log
ANN, SESSION = "ann", "visit-1"
SETTINGS: dict[str, Any] = {"exposures_shards": 1, "operator": True, "history_searches": True}

# Events of both kinds of identity, more than the log keeps; searches and impressions.
EVENTS: list[dict[str, Any]] = [
    *(
        {"user_id": ANN, "item_id": str(n), "type": "click", "timestamp": T + 1000 * n, "event_id": f"e{n}"}
        for n in range(CAP + 3)
    ),
    {"user_id": ANN, "item_id": "12", "type": "purchase", "timestamp": T + 20_000, "value": 9.5},
    {"user_id": ANN, "type": "search", "timestamp": T + 21_000, "query": "red shoes"},
    {"user_id": ANN, "item_id": "13", "type": "impression", "timestamp": T + 22_000, "event_id": "i1"},
    {"session_id": SESSION, "item_id": "14", "type": "view", "timestamp": T + 23_000},
]
FEATURES = {"age": "young", "visits": 3}
GREEDY = {"name": "all", "when": {"min_events": 0}, "decoding": {"strategy": "greedy"}}
POLICIES = {"segments": [GREEDY], "default": "all", "reason": "a drill"}
ITEM, CHANGED = "5", {"price": 12.5, "valid_from": "2020-01-01T00:00:00Z"}


async def play(service: Service) -> dict[str, Any]:
    """Does everything that leaves something in Redis; returns what the service says of it."""
    client = service.client

    async def call(method: str, path: str, **more: Any) -> Any:
        answer = await client.request(method, path, **more)
        assert answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json()

    await call("POST", "/events", json={"events": EVENTS})
    await service.settled()
    await call("PUT", f"/users/{ANN}/features", json={"features": FEATURES})
    await call("PATCH", f"/items/{ITEM}", json=CHANGED)
    for _ in range(2):
        await call("POST", "/recommend", json={"user_id": ANN, "k": 3, "seed": 7})
    await call("POST", "/recommend", json={"user_id": ANN, "k": 3, "page": True})
    await service.settled()
    await call("PUT", "/ops/policies", json=POLICIES)
    await call("PUT", "/ops/fallback", json={"mode": "fallback", "reason": "a drill"})
    await service.settled()
    return await told(service)


async def told(service: Service) -> dict[str, Any]:
    """What the service says of everything that is stored; times and names that differ from run to run left out."""
    client = service.client
    user = (await client.get(f"/users/{ANN}")).json()
    mode = (await client.get("/ops/fallback")).json()
    policies = (await client.get("/ops/policies")).json()
    audit = (await client.get("/ops/audit")).json()["entries"]
    kept = ("history", "seen_before", "features", "segment")
    return {
        "user": {name: user[name] for name in kept},
        "mode": {name: mode[name] for name in ("mode", "reason", "actor")},
        "policies": {name: policies[name] for name in ("version", "actor")},
        "audit": [entry["action"] for entry in audit],
    }


def dump(client: Any, prefix: str) -> dict[str, Any]:
    """Every key below the prefix, without it: its type and its content, as text in base64."""
    found = {}
    for key in sorted(client.scan_iter(match=f"{prefix}*")):
        kind = client.type(key).decode()
        found[key.decode().removeprefix(prefix)] = [kind, _READ[kind](client, key)]
    return found


def restore(client: Any, prefix: str, keys: Mapping[str, Any]) -> None:
    """Writes the keys of a fixture below another prefix."""
    for name, (kind, content) in keys.items():
        _WRITE[kind](client, prefix + name, content)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bare(data: str) -> bytes:
    return base64.b64decode(data)


def _stream(client: Any, key: bytes) -> Any:
    return [[i.decode(), [[text(k), text(v)] for k, v in fields.items()]] for i, fields in client.xrange(key)]


def _restore_stream(client: Any, key: str, content: Any) -> None:
    for entry, fields in content:
        client.execute_command("XADD", key, entry, *(bare(part) for pair in fields for part in pair))


_READ: dict[str, Any] = {
    "string": lambda client, key: text(client.get(key)),
    "hash": lambda client, key: {k.decode(): text(v) for k, v in sorted(client.hgetall(key).items())},
    "zset": lambda client, key: [[text(m), repr(s)] for m, s in client.zrange(key, 0, -1, withscores=True)],
    "set": lambda client, key: sorted(map(text, client.smembers(key))),
    "list": lambda client, key: [text(one) for one in client.lrange(key, 0, -1)],
    "stream": _stream,
}
_WRITE: dict[str, Any] = {
    "string": lambda client, key, content: client.set(key, bare(content)),
    "hash": lambda client, key, content: client.hset(key, mapping={k: bare(v) for k, v in content.items()}),
    "zset": lambda client, key, content: client.zadd(key, {bare(m): float(s) for m, s in content}),
    "set": lambda client, key, content: client.sadd(key, *map(bare, content)),
    "list": lambda client, key, content: client.rpush(key, *map(bare, content)),
    "stream": _restore_stream,
}


async def _written(url: str) -> dict[str, Any]:
    async with serving(redis_url=url, prefix="before:", **SETTINGS) as service:
        said = await play(service)
        with redis.Redis.from_url(url) as client:
            return {"told": said, "keys": dump(client, "before:")}


def main(commit: str, file: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gpt4rec-before-") as folder:
        server = Valkey(Path(folder))
        server.start()
        try:
            found = asyncio.run(_written(server.url))
        finally:
            server.stop()
    written = json.dumps({"commit": commit, **found}, sort_keys=True, indent=0).encode()
    file.write_bytes(gzip.compress(written, mtime=0))
    print(f"{len(found['keys'])} keys, {file.stat().st_size} bytes", *found["keys"], sep="\n")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
