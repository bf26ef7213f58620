"""A deployment with three spaces in this process, filled so that each has something to lose and something to tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from fastapi import FastAPI
from redis.asyncio import Redis

from loadtests.fleet.asgi_call import Asked, Told, call
from loadtests.fleet.isolation_requests import USERS, Shop
from service.api.runtime import Runtime
from service.app import create_app
from service.artifact.artifact import Artifact
from service.metrics.service_metrics import value_of
from service.settings.service_settings import Settings

ROOT, FRONT = "root-token", "front-key"
# Names that are in no catalogue, so that an answer with one of them has it from the service.
NAMES = ("default", "zapatos1", "libros1")
_PREFIX = "isolation:"
# Written by each replica again and again, whoever calls: signs of life, and what a probe writes.
_OF_REPLICAS = (b"{ops}:replicas", b"{ops}:probe", b"{u:}:probe")
_PATIENT = {
    "deadline_ms": 2000.0, "deadline_max_ms": 60_000.0, "redis_read_timeout_ms": 5000.0,
    "redis_write_timeout_ms": 5000.0, "engine_stall_s": 600.0,
}  # fmt: skip
_SETTLED_S = 30.0


class UnsettledError(Exception):
    """What follows the answers does not end."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running service.

    Attributes:
        app: The application.
        redis: A connection to its Redis.
        shops: The spaces, by name.
        prefixes: What the keys of each space begin with, as it was when the service opened.
    """

    app: FastAPI
    redis: Redis
    shops: Mapping[str, Shop]
    prefixes: Mapping[str, str]

    async def state(self, name: str) -> dict[str, object]:
        """Returns all that a request to another space could have changed in a space, by what it is.

        Pings of Redis that failed are left out: each space sends them by itself, and on a busy machine some are late.
        """
        runtime = self.runtime(name)
        space = runtime.space
        counted = {
            f"{sample.name} {sorted(sample.labels.items())}": sample.value
            for family in runtime.metrics.registry.collect()
            if family.type in ("counter", "histogram")
            for sample in family.samples
            if not sample.name.endswith("_created") and sample.labels.get("operation") != "ping"
        }
        found = {
            "mode": space.mode.mode,
            "policies": (space.policies.current.digest, space.policy_keeper.origin),
            "model": (space.model.version, id(space.serving.model.engine), space.models.active),
            "experiments": repr(space.experiments.document),
            "kept lists": space.kept.nbytes,
            "keys": (runtime.access.api_keys.digests(), runtime.access.ops_tokens.digests()),
            "in flight": value_of(runtime.metrics.inflight),
        }
        return {**found, **counted, **await self._kept(self.prefixes[name])}

    def runtime(self, name: str) -> Runtime:
        """Returns the service as a space has it."""
        found: Runtime = self.app.state.runtime.spaces[name]
        return found

    async def ask(self, asked: Asked) -> Told:
        """Returns the answer to a request, when nothing is left to do behind it."""
        told = await call(self.app, asked)
        await self.settled()
        return told

    async def settled(self) -> None:
        """Waits for the work behind the answers.

        Raises:
            UnsettledError: It does not end.
        """
        until = time.monotonic() + _SETTLED_S
        while any(self._busy(name) for name in self.shops):
            if time.monotonic() > until:
                raise UnsettledError("what follows an answer does not end")
            await asyncio.sleep(0.001)

    async def quiet(self, for_s: float = 2.5) -> None:
        """Waits until no space has changed for a while: figures and counts are written behind the answers, by time.

        Raises:
            UnsettledError: They go on changing.
        """
        until, since, before = time.monotonic() + _SETTLED_S, time.monotonic(), await self._all()
        while time.monotonic() - since < for_s:
            await asyncio.sleep(0.1)
            now = await self._all()
            if now != before:
                since, before = time.monotonic(), now
            if time.monotonic() > until:
                raise UnsettledError("the spaces go on changing without a request")

    async def _all(self) -> list[dict[str, object]]:
        return [await self.state(name) for name in self.shops]

    def _busy(self, name: str) -> bool:
        space = self.runtime(name).space
        waiting = space.recorder.lists_waiting or space.recorder.events_waiting
        return bool(waiting or not space.write_behind.idle)

    async def _kept(self, prefix: str) -> dict[str, object]:
        """Returns every key below a prefix, as Redis would move it to another server."""
        below = self.prefixes.values()
        inside = [other.encode() for other in below if other != prefix and other.startswith(prefix)]
        keys = [
            key
            async for key in self.redis.scan_iter(match=f"{prefix}*", count=1000)
            if not key.endswith(_OF_REPLICAS) and not key.startswith(tuple(inside))
        ]
        pipeline = self.redis.pipeline(transaction=False)
        for key in keys:
            pipeline.dump(key)
        return {repr(key): value for key, value in zip(keys, await pipeline.execute(), strict=True)}


@asynccontextmanager
async def deployed(folder: Path, redis_url: str, artifacts: Sequence[Path]) -> AsyncIterator[Deployment]:
    """Opens a service with three spaces, and fills each.

    Args:
        folder: For the files of the spaces.
        redis_url: Of an empty Redis.
        artifacts: The model of each space; the last one is that of the others too.
    """
    models = {name: artifacts[min(number, len(artifacts) - 1)] for number, name in enumerate(NAMES)}
    file = folder / "spaces.yaml"
    file.write_text(yaml.safe_dump({"spaces": {name: _described(folder, name, models[name]) for name in NAMES[1:]}}))
    settings = Settings.model_validate({
        "artifact": models["default"].resolve(), "spaces": file, "data_dir": folder / "data", "redis_url": redis_url,
        "redis_prefix": _PREFIX, "api_keys": f"front:{FRONT}:users:items", "ops_tokens": f"root:{ROOT}",
        "api_rate": "10000000/hour", "playground": True, **_PATIENT,
    })  # fmt: skip
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        shops = {name: _shop(name, models[name]) for name in NAMES}
        spaces: Mapping[str, Runtime] = app.state.runtime.spaces
        prefixes = {name: one.space.space.key_prefix for name, one in spaces.items()}
        deployment = Deployment(app, redis, shops, prefixes)
        for shop in shops.values():
            await _fill(deployment, shop)
        yield deployment


def _described(folder: Path, name: str, artifact: Path) -> dict[str, Any]:
    for kind, text in (("key", f"shop:{name}-key:users:items"), ("token", f"{name}-operator:{name}-token")):
        (folder / f"{name}.{kind}").write_text(text)
    return {
        "artifact": str(artifact.resolve()),
        "api_keys_file": f"{name}.key",
        "ops_tokens_file": f"{name}.token",
        "settings": {"api_rate": "10000000/hour"},
    }


def _shop(name: str, artifact: Path) -> Shop:
    opened = Artifact.open(artifact)
    items = tuple(opened.catalogue.item_ids[:6])
    key, token = (FRONT, ROOT) if name == "default" else (f"{name}-key", f"{name}-token")
    marks = [f"mark_{name}"] if name == "default" else [name]
    return Shop(name, key, token, items, opened.model_version, marks)


async def _fill(deployment: Deployment, shop: Shop) -> None:
    """Gives a space a history, features, items, policies, an experiment, a mode and an audit that bear its mark."""
    mark = f"mark_{shop.name}"
    events = [
        {"user_id": user, "item_id": item, "type": "view", "timestamp": 1_700_000_000_000 + 1000 * n,
         "session_id": f"{mark}-session"}
        for user in USERS
        for n, item in enumerate(shop.items)
    ]  # fmt: skip
    arms = [{"name": "one", "share": 0.5}, {"name": "two", "share": 0.5}]
    policies = {"default": mark, "segments": [{"name": mark, "decoding": {"strategy": "greedy"}}]}
    for method, path, body in (
        ("POST", "/events", {"events": events}),
        ("PUT", f"/users/{USERS[0]}/features", {"features": {"taste": mark}}),
        ("PUT", f"/items/{shop.items[0]}", {"title": f"{mark} title"}),
        ("PUT", "/ops/policies", {**policies, "reason": mark}),
        ("PUT", "/ops/fallback", {"mode": "auto", "reason": mark}),
        ("POST", "/ops/experiments", {"name": "running", "layer": mark, "arms": arms, "reason": mark}),
        ("POST", "/recommend", {"user_id": USERS[0]}),
    ):
        headers = (("authorization", f"Bearer {shop.token}"), ("x-gpt4rec-space", shop.name))
        told = await deployment.ask(Asked(method, path, headers, orjson.dumps(body)))
        if told.status != 200:
            raise RuntimeError(f"{shop.name}: {method} {path} answered {told.status}: {told.body.decode()}")
