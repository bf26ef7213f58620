"""Two workers of one process serve several spaces: what is told to one worker holds on both, in that space alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import Redis

from service.artifact.artifact import Artifact
from tests.support.processes import PATIENT, Serve, T, event, ids, items_of, serve
from tests.support.shops import secret_file
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

WORKERS = (1, 2)
# Every space has a user of this name.
USER = "u"
PREFIX = "on-workers:"
RATE = 12
# Written by each replica again and again, whoever calls.
_OF_REPLICAS = (b"{ops}:replicas", b"{ops}:probe", b"{u:}:probe")
# Of operators, whom no rate limits, and of frontends: the keys of both spaces have one name.
_TOKENS = {"default": "root-token", "shoes": "shoes-token", "books": "books-token"}
_KEYS = {"shoes": "shoes-key", "books": "books-key"}


class Shops:
    """The spaces of one service with two workers; each worker is called on its own port."""

    def __init__(self, service: Serve, redis_url: str, artifacts: tuple[Path, Path]) -> None:
        self._service = service
        self._redis = Redis.from_url(redis_url)
        self._client = httpx.Client(timeout=30.0)
        self.versions = [Artifact.open(path).model_version for path in artifacts]
        self.items = items_of(artifacts[0])

    def close(self) -> None:
        self._client.close()
        self._redis.close()

    def call(
        self, worker: int, space: str, method: str, path: str, body: Any = None, *, secret: str | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secret or _TOKENS[space]}"}
        url = f"http://127.0.0.1:{self._service.port + worker}/spaces/{space}{path}"
        return self._client.request(method, url, json=body, headers=headers)

    def told(self, worker: int, space: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.call(worker, space, method, path, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def listed(self, worker: int, space: str, user: str = USER) -> dict[str, Any]:
        body = {"user_id": user, "k": 6, "decoding": {"strategy": "beam"}, "segment": "active"}
        answer = self.told(worker, space, "POST", "/recommend", body)
        return {"items": ids(answer), "rung": answer["rung"], "reason": answer["reason"]}

    def state(self, worker: int, space: str) -> dict[str, Any]:
        """What callers of a space see of it on a worker."""
        return {
            "model": self.told(worker, space, "GET", "/version")["model_version"],
            "mode": self.told(worker, space, "GET", "/ops/fallback")["mode"],
            "policies": self.told(worker, space, "GET", "/ops/policies")["origin"],
            "audit": len(self.told(worker, space, "GET", "/ops/audit")["entries"]),
            "history": self.told(worker, space, "GET", f"/users/{USER}")["history"],
            "list": self.listed(worker, space),
        }

    def kept(self, space: str) -> dict[bytes, bytes | None]:
        """Every key of a space, as Redis would move it to another server, once nothing is written any more."""
        before: dict[bytes, bytes | None] = {}
        since = time.monotonic()

        def still() -> bool:
            nonlocal before, since
            now = self._keys(space)
            if now != before:
                before, since = now, time.monotonic()
            return time.monotonic() - since > 1.0

        eventually(still)
        return before

    def _keys(self, space: str) -> dict[bytes, bytes | None]:
        below = f"{PREFIX}space:".encode()
        of_default = space == "default"
        prefix = PREFIX if of_default else f"{PREFIX}space:{space}:"
        keys = [key for key in self._redis.scan_iter(match=f"{prefix}*", count=1000) if not key.endswith(_OF_REPLICAS)]
        return {key: self._redis.dump(key) for key in keys if not (of_default and key.startswith(below))}

    @contextmanager
    def others_stay_as_they_are(self) -> Iterator[None]:
        """Nothing that the body does to the space shoes changes another one: in Redis, or on a worker."""
        others = ("default", "books")
        before = {(worker, space): self.state(worker, space) for worker in WORKERS for space in others}
        kept = {space: self.kept(space) for space in others}
        assert all(kept.values()), "each has something to lose"
        yield
        assert {space: self.kept(space) for space in others} == kept
        assert {(worker, space): self.state(worker, space) for worker in WORKERS for space in others} == before


def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shops(
    two_versions: tuple[Path, Path], shared_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shops]:
    folder = tmp_path_factory.mktemp("workers")
    described = {
        space: {
            "artifact": str(two_versions[0]),
            "api_keys_file": str(secret_file(folder, f"{space}.keys", f"shop:{key}")),
            "ops_tokens_file": str(secret_file(folder, f"{space}.tokens", f"{space}-operator:{_TOKENS[space]}")),
            "settings": {"api_rate": f"{RATE}/hour"},
        }
        for space, key in _KEYS.items()
    }
    (folder / "spaces.yaml").write_text(yaml.safe_dump({"spaces": described}), encoding="utf-8")
    settings = {
        **PATIENT, "GPT4REC_SPACES": str(folder / "spaces.yaml"), "GPT4REC_REDIS_PREFIX": PREFIX,
        "GPT4REC_API_KEYS": "front:front-key", "GPT4REC_OPS_TOKENS": f"root:{_TOKENS['default']}",
    }  # fmt: skip
    where = ("--artifact", str(two_versions[0]), "--redis", shared_valkey.url, "--workers", "2")
    with serve(folder, *where, **settings) as service:
        found = Shops(service, shared_valkey.url, two_versions)
        try:
            events = [event(USER, item, T + n, event_id=str(n)) for n, item in enumerate(found.items[:5])]
            for space in _TOKENS:
                found.told(1, space, "POST", "/events", {"events": events})
            yield found
        finally:
            found.close()


def test_a_model_and_switches_of_a_space_hold_on_both_workers_and_in_no_other_space(shops: Shops) -> None:
    first, second = shops.versions
    policies = {
        "default": "active",
        "segments": [{"name": "active", "decoding": {"strategy": "greedy"}}],
        "reason": "drill",
    }
    with shops.others_stay_as_they_are():
        shops.told(1, "shoes", "POST", f"/ops/models/{second}/activate", {"reason": "drill"})
        eventually(lambda: shops.told(2, "shoes", "GET", "/version")["model_version"] == second)
        shops.told(2, "shoes", "PUT", "/ops/policies", policies)
        eventually(lambda: shops.told(1, "shoes", "GET", "/ops/policies")["origin"] == "operator")
        shops.told(2, "shoes", "PUT", "/ops/fallback", {"mode": "fallback", "reason": "drill"})
        for worker in WORKERS:
            eventually(lambda worker=worker: shops.listed(worker, "shoes", "nobody")["reason"] == "forced")  # type: ignore[misc]
    with shops.others_stay_as_they_are():
        shops.told(1, "shoes", "PUT", "/ops/fallback", {"mode": "auto", "reason": "drill"})
        shops.told(1, "shoes", "POST", "/ops/models/rollback", {"reason": "drill"})
        for worker in WORKERS:
            eventually(lambda worker=worker: shops.told(worker, "shoes", "GET", "/version")["model_version"] == first)  # type: ignore[misc]
            eventually(lambda worker=worker: shops.listed(worker, "shoes", "nobody")["rung"] == "full")  # type: ignore[misc]
            # Both tell the same audit: five changes of this space.
            assert len(shops.told(worker, "shoes", "GET", "/ops/audit")["entries"]) == 5


def test_an_erasure_in_a_space_holds_on_both_workers_and_the_user_stays_in_the_others(shops: Shops) -> None:
    known = [shops.listed(worker, "shoes") for worker in WORKERS]  # both have the state in memory
    assert known[0] == known[1]
    with shops.others_stay_as_they_are():
        shops.told(1, "shoes", "DELETE", f"/users/{USER}")
        for worker in WORKERS:
            assert shops.call(worker, "shoes", "GET", f"/users/{USER}").status_code == 404
            assert shops.listed(worker, "shoes") == shops.listed(worker, "shoes", "never seen")
        # And again: what is stored anew is seen by both.
        shops.told(2, "shoes", "POST", "/events", {"events": [event(USER, shops.items[0], T)]})
        for worker in WORKERS:
            assert len(shops.told(worker, "shoes", "GET", f"/users/{USER}")["history"]) == 1
            assert shops.items[0] not in shops.listed(worker, "shoes")["items"]


def test_the_rate_of_a_key_is_one_for_both_workers_and_of_its_space(shops: Shops) -> None:
    def status(n: int, space: str) -> int:
        body = {"session_id": "s", "k": 3}
        answer = shops.call(WORKERS[n % 2], space, "POST", "/recommend", body, secret=_KEYS[space])
        return answer.status_code

    with shops.others_stay_as_they_are():
        assert Counter(status(n, "shoes") for n in range(2 * RATE)) == {200: RATE, 429: RATE}
    # The key of the same name in the other space has its own.
    assert Counter(status(n, "books") for n in range(RATE)) == {200: RATE}
    assert [status(n, "books") for n in range(2)] == [429, 429]
