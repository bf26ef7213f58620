"""No request of one space reads or changes another: every route, every way to name a space, requests drawn at random.

`python -m loadtests.fleet.isolation` sends ten thousand of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from loadtests.fleet.isolation import Caller, Found
from loadtests.fleet.isolation_requests import operations
from loadtests.fleet.isolation_world import NAMES, Deployment, deployed
from service.api.runtime import Runtime
from tests.support.valkey import Valkey

Running = tuple[asyncio.Runner, Deployment]


@pytest.fixture(scope="module")
def running(
    shared_valkey: Valkey, random_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A deployment whose spaces are quiet: only one of them is called from then on."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        folder = tmp_path_factory.mktemp("isolated")
        deployment = runner.run(stack.enter_async_context(deployed(folder, shared_valkey.url, [random_artifact])))
        try:
            runner.run(deployment.quiet(1.3))
            yield runner, deployment
        finally:
            runner.run(stack.aclose())


def test_the_walk_has_every_route(running: Running) -> None:
    _, deployment = running
    there = {(m, r.path) for r in deployment.app.router.routes if isinstance(r, Route) for m in r.methods or ()}
    walked = operations(deployment.app)
    assert {(one.method, one.path) for one in walked} == there
    assert {one.path for one in walked if one.method in ("POST", "PUT", "PATCH") and not one.bodies} <= {
        "/items/{item_id:path}/disable",
        "/items/{item_id:path}/enable",
    }, "these have no example of a body, so the walk sends them none"


@settings(
    max_examples=2, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(data=st.data())
def test_no_request_reads_or_changes_another_space(running: Running, data: st.DataObject) -> None:
    runner, deployment = running
    found = Found()
    caller = Caller(deployment, NAMES[1], found)

    def pick(values: Any) -> Any:
        return data.draw(st.sampled_from(list(values)))

    for operation in operations(deployment.app):
        runner.run(caller.send(pick, operation))
    assert not found.crossed
    assert found.requests == len(operations(deployment.app))


def test_a_space_that_gets_the_parts_of_another_one_is_found_out(running: Running) -> None:
    runner, deployment = running
    spaces: dict[str, Runtime] = deployment.app.state.runtime.spaces
    own, found = spaces[NAMES[1]], Found()
    post = next(one for one in operations(deployment.app) if (one.method, one.path) == ("POST", "/events"))
    caller = Caller(deployment, NAMES[1], found)
    spaces[NAMES[1]] = spaces[NAMES[2]]
    try:
        said = runner.run(caller.send(lambda values: values[0], post))
    finally:
        spaces[NAMES[1]] = own
    assert said is not None
    assert f"{NAMES[2]}: changed" in said
