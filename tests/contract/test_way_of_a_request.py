"""The way of one `/recommend` through the rooms, as docs/architecture.md shows it, is the way that a request takes."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, cast

import service
from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.valkey import Valkey

SERVICE = Path(service.__file__).resolve().parent
DOCUMENT = SERVICE.parent / "docs" / "architecture.md"
# Ground that every room stands on; the way names it only where that explains something.
GROUND = {"common", "metrics", "process", "settings", "artifact"}
# Not a room: the object that is put together passes small functions on to the parts.
COMPOSITION = {"app", "assembly"}

# Set for the request that is followed, so that what the service does beside it is left out.
FOLLOWED: ContextVar[bool] = ContextVar("followed", default=False)

Step = tuple[str, str]


def documented() -> list[Step]:
    """File (below `service/`) and function of each line of the table, from top to bottom."""
    text = DOCUMENT.read_text("utf-8")
    section = re.search(r"(?ms)^## The way of one `/recommend`\n(.*?)^## ", text)
    assert section, "docs/architecture.md has no section on the way of one /recommend"
    return re.findall(r"(?m)^\| `service/(\S+\.py)` \| `([\w.]+)` \|", section[1])


def room(step: Step) -> str:
    return step[0].split("/")[0].removesuffix(".py")


@contextmanager
def recorded() -> Iterator[list[Step]]:
    """Functions of the service in the order of their first calls: by the followed request on the event loop, and by the
    threads that are started inside the block."""
    steps: dict[Step, None] = {}
    loop_thread = threading.get_ident()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(SERVICE)):
            return
        if FOLLOWED.get() or (threading.get_ident() != loop_thread and steps):
            steps.setdefault((str(Path(code.co_filename).relative_to(SERVICE)), code.co_qualname))

    found: list[Step] = []
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found.extend(steps)


@asynchronous
async def test_a_recommend_takes_the_way_that_the_architecture_shows(
    shared_valkey: Valkey, random_artifact: Path
) -> None:
    engine = Engine(Artifact.open(random_artifact), device="cpu")
    try:
        with recorded() as walked:
            async with serving(cast("Any", engine), redis_url=shared_valkey.url, prefix="way:") as served:
                await served.post_events("u", "1", "2")
                await served.settled()
                # A new request, whose history no process has in memory yet.
                served.runtime.space.states.cache.clear()
                FOLLOWED.set(True)
                answer = await served.recommend(user_id="u", k=3)
                FOLLOWED.set(False)
    finally:
        engine.close()
    assert answer["source"] == "gpt4rec"
    assert answer["rung"] == "full"

    way = documented()
    assert len(way) > 10
    unknown = [step for step in way if step not in walked]
    assert not unknown, f"not called, or called differently: {unknown}"
    assert way == sorted(way, key=walked.index), "the lines stand in another order than the calls"
    assert {room(step) for step in walked} - GROUND - COMPOSITION == {room(step) for step in way} - GROUND
