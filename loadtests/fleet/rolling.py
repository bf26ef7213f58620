"""Rolling restarts and releases behind HAProxy and nginx, under load, and what they lose.

    python -m loadtests.fleet.rolling restarts --artifact DIR [--proxy haproxy]
    python -m loadtests.fleet.rolling releases --artifact DIR --next DIR --release CHECKOUT [--proxy nginx]

Replicas of `gpt4rec serve` on one Valkey stand behind a proxy with the configuration of `deploy/`, and the client for
Python asks for lists and stores events all the while. In a round every replica is stopped and started again, one after
the other. A release changes commit and model: rounds go from the older commit with `--artifact` to this one with
`--next` and back in turns, so that each reads what the other wrote. `--release` is a checkout of the older commit
(`git worktree add DIR COMMIT`).

The rounds that are done are kept in `--work`: an interrupted command goes on with the next one. `--record` writes the
criteria, which need 20 rounds behind both proxies.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.proxies import NAMES, ProxyName, installed, proxy
from loadtests.fleet.replicas import Release, replicas
from loadtests.fleet.rolling_rounds import Fleet, Journal, Round, roll, summed
from loadtests.harness.checkout import Checkout
from loadtests.harness.valkey import TcpValkey
from loadtests.load.items import read_items
from service.artifact.manifest import resolve
from service.cli.outermost import run_command

ROUNDS = 20
REPLICAS = 3
_CRITERIA = {"restarts": fleet_criteria.ROLLING_RESTARTS, "releases": fleet_criteria.ROLLING_RELEASES}
_PAYLOAD = "rolling"

# What all replicas run after a round of this number; before the first one they run what round −1 would leave.
Releases = Callable[[int], Release]

app = typer.Typer(add_completion=False, no_args_is_help=True)

Artifact = Annotated[Path, typer.Option(help="Artefact to serve.")]
Only = Annotated[str | None, typer.Option("--proxy", help="haproxy or nginx; both without.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds behind each proxy.")]
Rate = Annotated[float, typer.Option(min=0.1, help="Calls a second.")]
Work = Annotated[Path, typer.Option(help="Folder of the rounds that are done.")]
Record = Annotated[bool, typer.Option("--record", help="Record the criterion, once both proxies had 20 rounds.")]


@app.command()
def restarts(
    artifact: Artifact,
    only: Only = None,
    rounds: Rounds = ROUNDS,
    rate: Rate = 25.0,
    work: Work = Path(".bench/rolling"),
    record: Record = False,
) -> None:
    """Restart every replica, one after the other, round for round."""
    same = Release("this", resolve(artifact))
    _run("restarts", lambda _: same, only, rounds, rate, work)
    if record:
        _record("restarts", work, "python -m loadtests.fleet.rolling restarts --artifact DIR --record")


@app.command()
def releases(
    artifact: Artifact,
    release: Annotated[Path, typer.Option(help="Checkout of an older commit, which serves --artifact.")],
    next_: Annotated[Path, typer.Option("--next", help="Artefact that this commit serves.")],
    only: Only = None,
    rounds: Rounds = ROUNDS,
    rate: Rate = 25.0,
    work: Work = Path(".bench/rolling"),
    record: Record = False,
) -> None:
    """Change release and model of every replica, one after the other; there and back in turns."""
    old = Release("old", resolve(artifact), Checkout(release))
    new = Release("new", resolve(next_))
    _run("releases", lambda number: new if number % 2 == 0 else old, only, rounds, rate, work)
    if record:
        example = "python -m loadtests.fleet.rolling releases --artifact DIR --next DIR --release CHECKOUT --record"
        _record("releases", work, example)


def run(
    kind: str, name: ProxyName, of_round: Releases, rounds: int, rate: float, journal: Journal, console: Console
) -> None:
    """Runs the rounds that are missing behind one proxy.

    Args:
        kind: `restarts`, or `releases`.
        name: The proxy.
        of_round: What replicas run after each round.
        rounds: How many there are to be.
        rate: Calls a second.
        journal: The rounds that are done.
        console: Where each round is told.

    Raises:
        NotReadyError: A replica did not start.
        ProxyError: The proxy did not start.
    """
    done = len(journal.of(kind, name))
    if done >= rounds:
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt4rec-rolling-")))
        folder.chmod(0o755)  # nginx reads it as another user
        valkey = stack.enter_context(TcpValkey(folder / "valkey", fsync="everysec"))
        first = of_round(done - 1)
        running = stack.enter_context(replicas(folder, REPLICAS, valkey.url, first))
        before = stack.enter_context(proxy(name, folder, [replica.port for replica in running]))
        fleet = Fleet(before, running, valkey.url, read_items(first.artifact), rate)
        for number in range(done, rounds):
            found = roll(fleet, kind, number, of_round(number))
            journal.add(found)
            console.print(_line(found, rounds), highlight=False)


def _run(kind: str, of_round: Releases, only: str | None, rounds: int, rate: float, work: Path) -> None:
    console, journal = Console(), Journal(work / "rounds.jsonl")
    for name in _chosen(only):
        run(kind, name, of_round, rounds, rate, journal, console)
        sums = summed(journal.of(kind, name)[:rounds])
        console.print({"proxy": name, **sums}, highlight=False)


def _chosen(only: str | None) -> Sequence[ProxyName]:
    chosen = [name for name in NAMES if only in (None, name)]
    if not chosen:
        raise typer.BadParameter(f"{only}: choose {' or '.join(NAMES)}", param_hint="--proxy")
    for name in chosen:
        if not installed(name):
            raise typer.BadParameter(f"{name} is not installed: apt-get install {name}", param_hint="--proxy")
    return chosen


def _line(found: Round, rounds: int) -> str:
    kinds = f" ({', '.join(f'{name}: {n}' for name, n in found.kinds.items())})" if found.kinds else ""
    return (
        f"{found.proxy} {found.kind} {found.number + 1}/{rounds} to {found.to}: {found.lists} lists, {found.events} "
        f"events, {found.hedged} hedged; {found.errors} errors{kinds}, {found.missing} missing, {found.doubled} doubled"
    )


def _record(kind: str, work: Path, command: str) -> None:
    journal = Journal(work / "rounds.jsonl")
    by_proxy = {name: journal.of(kind, name)[:ROUNDS] for name in NAMES}
    if any(len(found) < ROUNDS for found in by_proxy.values()):
        raise typer.BadParameter(f"the criterion is read of {ROUNDS} rounds behind each of {' and '.join(NAMES)}")
    lost = sum(one.lost for found in by_proxy.values() for one in found)
    results.record(results.FLEET, fleet_criteria.row(_CRITERIA[kind], lost, command))
    kept = results.load(_PAYLOAD) or {}
    sums = {name: summed(found) for name, found in by_proxy.items()}
    tables = {old: kept[old] for old in _CRITERIA if old in kept} | {kind: sums}
    results.save(_PAYLOAD, tables, command="python -m loadtests.fleet.rolling")


def _end(*_: object) -> None:
    raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # so that what runs ends with the command, as at Ctrl-C
    run_command(app)
