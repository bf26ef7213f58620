"""Whether a training goes on after a process was killed: `python -m loadtests.fleet.torch_resume --data DIR`.

Two processes train under torchrun. One of them is killed (SIGKILL) in the middle of an epoch, the other has to end with
a message, and the same command with `--resume` has to reach the weights of a run that nothing disturbed, bit for bit,
or with another number of processes up to the order of sums. In two cases torchrun starts the processes again by itself.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import Tensor

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.torch_launch import LaunchError, torchrun, until
from model.errors import RunError
from model.training.run_folder import BEST, BEST_NAME, CHECKPOINT, CHECKPOINT_NAME, load_tensors
from model.training.sharded_files import Shards, index_of
from service.cli.outermost import run_command

NAME, COMMAND = "fleet_torch_resume", "python -m loadtests.fleet.torch_resume --data DIR"
# A short training: two epochs before the kill, one and more after it.
SETTINGS = ("size=tiny", "max_epochs=4", "patience=10")


@dataclass(frozen=True)
class Case:
    """A process that is killed.

    Attributes:
        name: What happens.
        rank: The rank that is killed.
        again: Processes of the run that goes on; 0: torchrun starts them again by itself.
        in_parts: Whether the item table is in parts.
    """

    name: str
    rank: int
    again: int
    in_parts: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of the training."""
        return ("negatives=128", "shard_items=true") if self.in_parts else ()


CASES = (
    Case("the second process is killed, --resume", 1, 2),
    Case("the first process is killed, --resume", 0, 2),
    Case("the second process is killed, torchrun --max-restarts 1", 1, 0),
    Case("the second process is killed, table in parts, --resume", 1, 2, in_parts=True),
    Case("the first process is killed, table in parts, torchrun --max-restarts 1", 0, 0, in_parts=True),
    Case("the second process is killed, --resume with one process", 1, 1),
    Case("the second process is killed, table in parts, --resume with four processes", 1, 4, in_parts=True),
)
# Largest difference of a weight that another number of processes may make: their sums have another order.
CLOSE = 1e-3


def arguments(data: Path, run: Path, settings: Sequence[str], *more: str) -> list[str]:
    """Returns the arguments of python that train."""
    given = [word for one in settings for word in ("--set", one)]
    return ["-m", "service.cli", "train", "--data", str(data), "--out", str(run), *given, *more]


def finished(run: Path) -> int:
    """Returns how many epochs of a run have finished."""
    try:
        if index_of(run, CHECKPOINT_NAME).exists():
            return int(Shards.open(run, CHECKPOINT_NAME).meta["epoch"])
        return int(load_tensors(run / CHECKPOINT)[1]["epoch"])
    except RunError:
        return 0


def weights(run: Path) -> dict[str, Tensor]:
    """Returns the weights of a run, their averages and the optimiser's state, and the best weights."""
    found: dict[str, Tensor] = {}
    for name, file in ((CHECKPOINT_NAME, CHECKPOINT), (BEST_NAME, BEST)):
        tensors = Shards.open(run, name).whole() if index_of(run, name).exists() else load_tensors(run / file)[0]
        found |= {f"{name}.{key}": value for key, value in tensors.items()}
    return found


def difference(one: Path, other: Path) -> float:
    """Returns the largest difference of two runs' weights and states; 0 where they are the same bit for bit."""
    first, second = weights(one), weights(other)
    if first.keys() != second.keys():
        raise LaunchError(f"{one} and {other} have other tensors")
    return max((first[key].double() - second[key].double()).abs().max().item() for key in first)


def killed(case: Case, data: Path, run: Path, settings: Sequence[str], log: Path) -> tuple[int, str]:
    """Trains, kills one process after two epochs, and waits for the end.

    Returns:
        The epochs that had finished when it was killed, and the last lines of the log.

    Raises:
        LaunchError: The processes did not get there, or did not end.
    """
    options = () if case.again else ("--max-restarts=1",)
    with torchrun(2, arguments(data, run, settings), log, options=options) as launched:
        until("two epochs", lambda: finished(run) >= 2, launched)
        ranks, at = launched.ranks(), finished(run)
        if case.rank not in ranks:
            raise LaunchError(f"{case.name}: it ended before it could be killed; train for longer")
        os.kill(ranks[case.rank], signal.SIGKILL)
        status = launched.wait()
        if bool(status) != bool(case.again):
            raise LaunchError(f"{case.name}: torchrun ended with {status}:\n{launched.tail()}")
        return at, launched.tail(200)


def tried(case: Case, data: Path, undisturbed: Path, work: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Returns what came of a case."""
    run, log = work / "run", work / "log"
    work.mkdir()
    at, said = killed(case, data, run, settings, log)
    if case.again:
        with torchrun(case.again, arguments(data, run, (), "--resume"), log) as launched:
            if launched.wait():
                raise LaunchError(f"{case.name}: --resume failed:\n{launched.tail()}")
    return {
        "case": case.name,
        "epochs_before": at,
        "says_why": "another process of the training has ended" in said,
        "difference": (apart := difference(run, undisturbed)),
        "same": apart == 0.0 if case.again in (0, 2) else apart <= CLOSE,
    }


def main(
    data: Annotated[Path, typer.Option(help="Data set folder, written by `gpt4rec data`.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A training setting, key=value.")] = None,
) -> None:
    """Kills processes of trainings and records how many runs did not go on."""
    console, settings = Console(), (*SETTINGS, *(assignments or []))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        undisturbed: dict[bool, Path] = {}
        for number, case in enumerate(CASES):
            given = (*settings, *case.settings)
            if case.in_parts not in undisturbed:
                run = undisturbed[case.in_parts] = Path(folder) / f"undisturbed-{number}"
                with torchrun(2, arguments(data, run, given), Path(folder) / "log") as launched:
                    if launched.wait():
                        raise LaunchError(f"the undisturbed training failed:\n{launched.tail()}")
            found.append(tried(case, data, undisturbed[case.in_parts], Path(folder) / str(number), given))
            console.print(found[-1])
    results.save(NAME, {"cases": found, "settings": list(settings)}, command=COMMAND, folder=out)
    if not assignments:
        lost = sum(not one["same"] for one in found)
        results.record(out / results.FLEET.name, fleet_criteria.row(fleet_criteria.TORCH_RESUMED, lost, COMMAND))


if __name__ == "__main__":
    run_command(main)
