"""Experiments are promoted and returned under load, on two replicas: no error, and no mixed answer.

    python -m loadtests.loop.promotions --artifact MODELS/VERSION --other VERSION [--rounds 50] [--record]

Both versions are in one folder. First each version says alone what it lists for every user. Then, while users ask both
replicas without a pause, rounds follow: a canary of the other version starts, and is promoted or returned, in turn.
Every answer of a model must be the list that the version it names makes; answers of another rung, which say so, are
counted, and must be few.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from loadtests.common import results
from loadtests.harness import served_process
from loadtests.harness.valkey import TcpValkey
from loadtests.load.items import read_items
from loadtests.loop import criteria
from service.cli.outermost import run_command

_OPS = {"Authorization": "Bearer tok"}
_SETTINGS = {
    "GPT4REC_OPS_TOKENS": "alice:tok",
    "GPT4REC_DEADLINE_MS": "5000",
    "GPT4REC_DEADLINE_MAX_MS": "5000",
    "GPT4REC_CATCH_UP_TIMEOUT_MS": "300",
    "GPT4REC_MODE_POLL_MS": "100",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "2000",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000",
    "OMP_NUM_THREADS": "1",
}
_PATIENCE_S = 120.0
_T = 1_700_000_000_000

Lists = dict[str, tuple[str, ...]]


@dataclass(slots=True)
class Seen:
    """What the answers under load were.

    Attributes:
        answers: Number of answers.
        full: Number of those that a model listed, which were compared.
        errors: Texts of those that were none.
        mixed: What was wrong with lists that are not those of their version or arm.
        arms: Answers by arm and version.
    """

    answers: int = 0
    full: int = 0
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    arms: set[tuple[str | None, str]] = field(default_factory=set)

    @property
    def full_share(self) -> float:
        """Share of the answers that a model listed, per cent."""
        return 100.0 * self.full / self.answers if self.answers else 0.0


def run(artifact: Path, other: str, rounds: int, users: int, tell: Callable[[str], None]) -> Seen:
    """Promotes and returns under load.

    Args:
        artifact: Folder of the version that is served first.
        other: The other version, in a folder beside it.
        rounds: Promotions and returns, taking turns.
        users: Users that ask.
        tell: Called with progress.
    """
    items = read_items(artifact)
    with tempfile.TemporaryDirectory(prefix="gpt4rec-promotions-") as folder:
        valkey = TcpValkey(Path(folder) / "valkey", fsync="no")
        valkey.start()
        redis = ("--redis", valkey.url)
        try:
            with (
                served_process.serve(artifact, *redis, GPT4REC_DATA_DIR=f"{folder}/one", **_SETTINGS) as one,
                served_process.serve(artifact, *redis, GPT4REC_DATA_DIR=f"{folder}/two", **_SETTINGS) as two,
                httpx.Client(base_url=one.url, timeout=_PATIENCE_S, headers=_OPS) as ops,
                httpx.Client(base_url=two.url, timeout=_PATIENCE_S, headers=_OPS) as ops_two,
            ):
                names = [f"u{i}" for i in range(users)]
                _fill(ops, names, items)
                first = artifact.resolve().name
                expected = {first: _lists(ops, names)}
                _activate(ops, other)
                expected[other] = _lists(ops, names)
                _activate(ops, first)
                _until(lambda: _active(ops_two) == first)
                seen = Seen()
                with _load((one.url, two.url), names, expected, seen):
                    served = first
                    for number in range(rounds):
                        served = _round(ops, ops_two, number, served, other if served == first else first, seen)
                        tell(f"{number + 1:,} of {rounds:,} rounds, {seen.answers:,} answers")
                return seen
        finally:
            valkey.kill9()


def _round(ops: httpx.Client, ops_two: httpx.Client, number: int, served: str, candidate: str, seen: Seen) -> str:
    """Starts a canary, and promotes or returns it; returns the version that is served then."""
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "model": candidate}]
    body = {"name": f"round-{number}", "arms": arms, "guardrails": {"click_through": False}}
    _ok(ops.post("/ops/experiments", json=body))
    _until(lambda: candidate in ops_two.get("/ops/experiments").json()["memory"]["held"])
    _more(seen, 10)
    if number % 2:
        _ok(ops.post(f"/ops/experiments/round-{number}/stop", json={"reason": "returned"}))
        _more(seen, 5)
        return served
    _ok(ops_two.post(f"/ops/experiments/round-{number}/promote", json={"arm": "new"}))
    _until(lambda: _active(ops) == candidate == _active(ops_two))
    _more(seen, 5)
    return candidate


def judged(answer: Mapping[str, Any], expected: Mapping[str, Lists]) -> str | None:
    """Returns what is mixed about an answer; None if it is as its version makes it.

    Args:
        answer: The answer.
        expected: What each version lists, by user.
    """
    user, version = str(answer["user_id"]), str(answer["model_version"])
    listed = tuple(item["item_id"] for item in answer["items"])
    if listed != expected.get(version, {}).get(user):
        return f"{user} got a list that {version} does not make"
    return None


def _fill(ops: httpx.Client, names: Sequence[str], items: Sequence[str]) -> None:
    events = [
        {"user_id": name, "item_id": items[(7 * i + n) % len(items)], "type": "click", "timestamp": _T + 1000 * n}
        for i, name in enumerate(names)
        for n in range(5)
    ]
    for start in range(0, len(events), 500):
        _ok(ops.post("/events", json={"events": events[start : start + 500]}))


def _question(user: str) -> dict[str, Any]:
    return {"user_id": user, "k": 8, "decoding": {"strategy": "beam"}}


def _lists(ops: httpx.Client, names: Sequence[str]) -> Lists:
    found = {}
    for name in names:
        answer = _ok(ops.post("/recommend", json=_question(name)))
        if answer["rung"] != "full":
            raise typer.BadParameter(f"a list of {name} came from the rung {answer['rung']}: is the machine too busy?")
        found[name] = tuple(item["item_id"] for item in answer["items"])
    return found


@contextmanager
def _load(urls: Sequence[str], names: Sequence[str], expected: Mapping[str, Lists], seen: Seen) -> Iterator[None]:
    ended, lock = threading.Event(), threading.Lock()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=_PATIENCE_S) as client:
            number = 0
            while not ended.is_set():
                number += 1
                answer = client.post("/recommend", json=_question(names[number % len(names)]))
                with lock:
                    _see(answer, expected, seen)

    threads = [threading.Thread(target=ask, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _see(answer: httpx.Response, expected: Mapping[str, Lists], seen: Seen) -> None:
    seen.answers += 1
    if answer.status_code != httpx.codes.OK:
        seen.errors.append(answer.text)
        return
    body = answer.json()
    if body["rung"] != "full":
        return  # too late on a busy machine: the list is not the model's, and says so
    seen.full += 1
    if (fault := judged(body, expected)) is not None:
        seen.mixed.append(fault)
    seen.arms.add((next(iter(body["arms"].values()), None), body["model_version"]))


def _activate(ops: httpx.Client, version: str) -> None:
    _ok(ops.post(f"/ops/models/{version}/activate", json={}))


def _active(ops: httpx.Client) -> str:
    return str(ops.get("/ops/models").json()["active"])


def _ok(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != httpx.codes.OK:
        raise typer.BadParameter(f"{answer.request.url.path}: {answer.status_code} {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


def _more(seen: Seen, n: int) -> None:
    """Waits for answers of a model."""
    wanted = seen.full + n
    _until(lambda: seen.full >= wanted)


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > until:
            raise typer.BadParameter(f"nothing happened for {_PATIENCE_S:g} s")
        time.sleep(0.05)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder of the version that is served first.")],
    other: Annotated[str, typer.Option(help="The other version, in a folder beside it.")],
    rounds: Annotated[int, typer.Option(min=1, help="Promotions and returns, taking turns.")] = criteria.PROMOTIONS,
    users: Annotated[int, typer.Option(min=1, help="Users that ask.")] = 50,
    record: Annotated[bool, typer.Option("--record", help="Write the row into loadtests/results/loop.json.")] = False,
) -> None:
    """Promote and return experiments under load. Exits with 1 after an error, a mixed answer, or too few of a model."""
    seen = run(artifact, other, rounds, users, lambda line: typer.echo(line, err=True))
    wrong = len(seen.errors) + len(seen.mixed)
    typer.echo(
        f"{rounds:,} promotions and returns, {seen.answers:,} answers: {len(seen.errors):,} errors, "
        f"{len(seen.mixed):,} mixed {(seen.errors + seen.mixed)[:3] or ''}; {seen.full_share:.2f} % listed by a model"
    )
    command = f"python -m loadtests.loop.promotions --artifact ARTIFACT --other VERSION --rounds {rounds} --record"
    rows = [
        criteria.row(criteria.PROMOTED, wrong, "answers", command),
        criteria.row(criteria.PROMOTED_FULL, seen.full_share, "%", command),
    ]
    for row in rows if record else ():
        results.record(results.LOOP, row)
    raise typer.Exit(int(not all(row.holds for row in rows)))


if __name__ == "__main__":
    run_command(main)
