"""One fault on a scene of its own: services, load, the fault, the recovery, and the promises.

    def run(scene: Scene) -> None:
        service = scene.serve()                               or scene.faulty(), with settings by name
        with scene.load(service.url):                         healthy first: ≥ 2 s of full answers
            with scene.fault(reasons={"deadline"}):           reasons that answers may give until recovery
                …                                             begin the fault
                scene.hold(5.0)
                …                                             end it
        scene.promise(ok, "…")                                any further promise

Leaving `load` waits until the service has recovered, ends the load, and compares the stored events with the
acknowledged ones. A fault without load (an artefact that must be refused) only calls `promise`. Resources are entered
with `scene.enter(context manager)` and released at the end; `scene.folder` is empty and is removed too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx

from loadtests.chaos.load import EVENTS, RECOMMEND, Load, Seen
from loadtests.harness import served_process
from loadtests.harness.faulty_model import Control, faulty
from service.artifact.artifact import Artifact

T = TypeVar("T")

BUDGET_MS = 80.0
LATE_SHARE = 0.01
# So many whole answers in a row show that a service has recovered.
WELL = 20
HEALTHY_S, AFTER_S, RECOVER_S = 2.0, 2.0, 60.0
TOKEN = {"Authorization": "Bearer chaos-token"}
# No acknowledged event may be trimmed before it is compared.
SETTINGS = {"GPT4REC_OPS_TOKENS": "chaos:chaos-token", "GPT4REC_HISTORY_CAP": "100000"}


class SceneError(RuntimeError):
    """Raised if the fault could not be tried: a service was not healthy at first, or this machine lacks the means."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault; `text` says what is done to the service, `promise` what the service promises meanwhile."""

    name: str
    group: str
    text: str
    promise: str
    run: Callable[[Scene], None]


@dataclass(slots=True)
class Allowed:
    """What may happen from the beginning of a fault until the service has recovered, and at no other time.

    Attributes:
        reasons: Reasons of answers (None: any), apart from a small share that may be late.
        refused: Whether /events may answer 503.
        errors: Failures such as "/recommend refused" that the fault causes and the service cannot avoid.
        lossy: Whether the fault destroys acknowledged events. They are counted, and lists may contain their items.
    """

    reasons: Collection[str] | None = None
    refused: bool = False
    errors: Collection[str] = ()
    lossy: bool = False


@dataclass(slots=True)
class _Timeline:
    """Moments of `time.perf_counter`."""

    began: float = math.inf
    ended: float = math.inf
    well: float = math.inf


@dataclass(slots=True)
class Scene:
    """The services, the load and the promises of one fault."""

    artifact: Path
    folder: Path
    quick: bool = False
    late_share: float = LATE_SHARE
    allowed: Allowed = field(default_factory=Allowed)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    running: Load | None = None
    _times: _Timeline = field(default_factory=_Timeline)
    _lost: int = 0
    _twice: int = 0

    # -- for the faults

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enters a context that ends with the scene."""
        return self.stack.enter_context(context)

    def serve(self, *arguments: str, **environment: str) -> served_process.Served:
        """Starts a service of the scene.

        Raises:
            NotReadyError: If it does not become ready.
        """
        return self.enter(served_process.serve(self.artifact, *arguments, **{**SETTINGS, **environment}))

    def faulty(self, *arguments: str, **environment: str) -> tuple[served_process.Served, Control]:
        """Starts a service whose model and clock can misbehave on command."""
        return self.enter(faulty(self.artifact, *arguments, **{**SETTINGS, **environment}))

    @contextmanager
    def load(self, *urls: str, rate: float = 100.0, stored_at: str = "", stamped: bool = False) -> Iterator[Load]:
        """Runs load on the services, then compares the events that `stored_at` (by default the first) has stored."""
        items = list(Artifact.open(self.artifact).catalogue.item_ids)
        with Load(urls, items, rate=rate, stamped=stamped) as load:
            self.running = load
            self._until_well(time.perf_counter(), "before the fault")
            self.hold(HEALTHY_S)
            yield load
            self._times.well = self._until_well(self._times.ended, "after the fault")
            self.hold(AFTER_S)
        self._compare(stored_at or urls[0])

    @contextmanager
    def fault(
        self,
        *,
        reasons: Collection[str] | None = None,
        refused: bool = False,
        errors: Collection[str] = (),
        lossy: bool = False,
    ) -> Iterator[None]:
        """Marks the begin and the end of the fault; see `Allowed` for the arguments."""
        self.allowed = Allowed(reasons, refused, errors, lossy)
        self._times.began = time.perf_counter()
        try:
            yield
        finally:
            self._times.ended = time.perf_counter()

    def hold(self, seconds: float) -> None:
        """Waits; a quarter of the time on a quick run."""
        time.sleep(seconds / 4 if self.quick else seconds)

    def promise(self, kept: bool, text: str) -> None:
        """Records a further promise if it was broken."""
        if not kept:
            self.broken.append(text)

    # -- what was found

    def entry(self, fault: Fault) -> dict[str, Any]:
        """Returns the row of the fault, after adding the promises that its requests broke."""
        seen = self.running.seen if self.running else []
        lists = [one for one in seen if one.path == RECOMMEND]
        events = [one for one in seen if one.path == EVENTS]
        late = sum(one.took_s * 1e3 > BUDGET_MS for one in lists if one.took_s is not None)
        wrong = self.running.wrong if self.running else []
        if seen:
            self._judge(seen, late, wrong)
        rungs = Counter(one.rung for one in lists if one.rung is not None)
        times = self._times
        return {
            "group": fault.group, "fault": fault.text, "promise": fault.promise,
            "seconds": _span(seen), "requests": len(seen),
            "answers": {rung: rungs[rung] for rung in ("full", "narrow", "item_cf", "popular")},
            "reasons": dict(Counter(one.reason for one in lists if one.reason is not None).most_common()),
            "errors": dict(_errors(seen)),
            "events": {
                "acknowledged": sum(one.status == 200 for one in events),
                "refused": sum(one.status == 503 for one in events),
                "lost": self._lost, "twice": self._twice,
                "undone": self.running.undone if self.running else 0,
            },
            "late": late, "budget_ms": BUDGET_MS, "p99_ms": _p99_ms(lists),
            "wrong": len(wrong), "wrong_examples": wrong[:3],
            "recovery_s": None if math.isinf(times.well) else round(max(0.0, times.well - times.ended), 3),
            "holds": not self.broken, "broken": self.broken, "notes": self.notes,
        }  # fmt: skip

    def _judge(self, seen: Sequence[Seen], late: int, wrong: Sequence[str]) -> None:
        times, allowed = self._times, self.allowed
        meant = [one for one in seen if times.began <= one.answered_at and one.due <= times.well]
        other = [one for one in seen if not (times.began <= one.answered_at and one.due <= times.well)]
        excused = {*allowed.errors, *((f"{EVENTS} 503",) if allowed.refused else ())}
        for name, count in (_errors(meant) - Counter(dict.fromkeys(excused, len(seen)))).items():
            self.broken.append(f"{count} times {name} during the fault")
        for name, count in _errors(other).items():
            self.broken.append(f"{count} times {name} without a fault")
        strange = Counter(one.reason for one in meant if one.reason is not None)
        names = set() if allowed.reasons is None else set(strange) - set(allowed.reasons)
        # A hiccup of the machine is not a broken promise; the table shows it anyway.
        if sum(strange[name] for name in names) > self.late_share * sum(one.path == RECOMMEND for one in meant):
            unexpected = ", ".join(f"{strange[name]} × {name}" for name in sorted(names))
            self.broken.append(f"answers for other reasons than the fault's: {unexpected}")
        lists = sum(one.path == RECOMMEND for one in seen)
        self.promise(late <= self.late_share * lists, f"{late} of {lists} lists late")
        self.promise(not wrong or allowed.lossy, f"{len(wrong)} lists wrong")
        self.promise(not self._lost or allowed.lossy, f"{self._lost} acknowledged events lost")
        self.promise(not self._twice, f"{self._twice} events twice")
        self.promise(not math.isinf(times.well), f"not well again within {RECOVER_S:.0f} s")

    def _until_well(self, since: float, when: str) -> float:
        """Returns when the first series of whole answers since then began; infinity if none came in time."""
        assert self.running is not None  # noqa: S101 - there is load
        until = time.perf_counter() + RECOVER_S
        while time.perf_counter() < until:
            row: list[Seen] = []
            for one in [one for one in self.running.seen[:] if one.path == RECOMMEND and one.due >= since]:
                row = [*row, one] if one.whole else []
                if len(row) == WELL:
                    return row[0].answered_at
            time.sleep(0.05)
        if math.isinf(self._times.began):
            raise SceneError(f"not well {when}: {self.running.seen[-1:]}")
        return math.inf

    def _compare(self, url: str) -> None:
        """Compares the stored events with the acknowledged ones."""
        assert self.running is not None  # noqa: S101 - there was load
        with httpx.Client(base_url=url, headers=TOKEN, timeout=30.0) as client:
            for user, events in self.running.acknowledged.items():
                stored = Counter(one["event_id"] for one in stored_history(client, user))
                self._lost += len(events.keys() - stored.keys())
                self._twice += sum(count > 1 for count in stored.values())


def stored_history(
    client: httpx.Client, user: str, failure: type[Exception] = SceneError, within_s: float = RECOVER_S
) -> list[dict[str, Any]]:
    """Returns the stored events of a user. An answer that is refused says nothing about them: it is asked for again.

    Args:
        client: Of the service, with a token that may read users.
        user: Whose events.
        failure: What is raised if they cannot be read in time.
        within_s: Until when they are asked for.
    """
    until = time.perf_counter() + within_s
    while True:
        answer = client.get(f"/users/{user}")
        if answer.status_code in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            history: list[dict[str, Any]] = answer.json().get("history", [])
            return history
        if time.perf_counter() > until:
            raise failure(f"the history of {user} cannot be read: {answer.status_code} {answer.text}")
        time.sleep(0.1)


def _errors(seen: Sequence[Seen]) -> Counter[str]:
    return Counter(f"{one.path} {one.status}" for one in seen if one.status != 200)


def _span(seen: Sequence[Seen]) -> float:
    return round(max(one.answered_at for one in seen) - min(one.due for one in seen), 1) if seen else 0.0


def _p99_ms(seen: Sequence[Seen]) -> float | None:
    times = sorted(one.took_s * 1e3 for one in seen if one.took_s is not None)
    return round(times[math.ceil(0.99 * len(times)) - 1], 2) if times else None
