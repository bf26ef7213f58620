"""Ranks of the test questions' targets, kept by user id, so that two commits can be compared user by user.

    python -m loadtests.quality.ranks FOLDER... [--data DIR]

FOLDER is a run of `gpt4rec train`, or holds such runs at any depth. Beside each `run.json` that has no `ranks.npz` the
command writes one: the lists of the run's newest artefact (made if there is none) through the graphs that serve, a beam
of 5. Only `model`, `export` and `service` are used, so that the file can be run against an older commit:

    cd OLDER_TREE && PYTHONPATH=. python -P NEWER_TREE/loadtests/quality/ranks.py FOLDER...

`loadtests.quality.before` pairs what two commits wrote.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import typer

from export.from_run import export_run
from model.evaluation import metrics
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import engine_ranker
from model.training.run_folder import Run
from service.artifact.array_types import IntArray
from service.cli.outermost import run_command
from service.common.atomic_files import replacing
from service.common.errors import ServiceError
from service.engine.decoding import Decoding
from service.engine.engine import Engine

FORMAT = 1
FILE = "ranks.npz"
SERVED = "served"
DECODING = Decoding("beam", beam_width=5)


class RanksError(ServiceError):
    """A file of ranks cannot be used."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the targets in the lists of one training, and of what stands beside it.

    Attributes:
        data: Name of the data set.
        fingerprint: Its fingerprint. Shuffled ties have another one.
        split: `strict`, `sampled` or `time`.
        seed: Seed of the training.
        users: [users] ids.
        ranks: System → [users] int8, the 0-based rank of the target, −1 where it is not in the list.
    """

    data: str
    fingerprint: str
    split: str
    seed: int
    users: tuple[str, ...]
    ranks: Mapping[str, npt.NDArray[np.int8]]

    @property
    def key(self) -> tuple[str, str, int]:
        """What two trainings share that can be paired: fingerprint, split and seed."""
        return self.fingerprint, self.split, self.seed

    def of(self, system: str) -> IntArray:
        """Returns the ranks [users] of a system."""
        return self.ranks[system].astype(np.int64)

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        about = {"format": FORMAT, "data": self.data, "fingerprint": self.fingerprint, "split": self.split}
        text = json.dumps(about | {"seed": self.seed, "users": self.users, "systems": list(self.ranks)})
        arrays = {f"rank_{n}": ranks.astype(np.int8) for n, ranks in enumerate(self.ranks.values())}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, about=np.frombuffer(text.encode("utf-8"), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            RanksError: The file is missing, damaged, or of another format.
        """
        again = "write it again with `python -m loadtests.quality.ranks`"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about: dict[str, Any] = json.loads(arrays["about"].tobytes())
                if about["format"] != FORMAT:
                    raise RanksError(f"{path} has format {about['format']}, this version reads {FORMAT}; {again}")
                users = tuple(about["users"])
                ranks = {name: arrays[f"rank_{n}"] for n, name in enumerate(about["systems"])}
        except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise RanksError(f"{path} is no file of ranks ({error}); {again}") from error
        if any(one.shape != (len(users),) for one in ranks.values()):
            raise RanksError(f"{path} is damaged: ranks and users differ in number; {again}")
        return cls(about["data"], about["fingerprint"], about["split"], about["seed"], users, ranks)


def split_name(run: Run) -> str:
    """Returns the split of a run: `strict` where the last event but one of everybody is held out."""
    if run.config.split == "time":
        return "time"
    return "strict" if run.config.validation_users == 0 else "sampled"


def served(folder: Path, data: Path | None = None) -> Ranks:
    """Ranks the test questions of a run through its newest artefact, which is made if there is none."""
    run = Run.open(folder)
    kept = folder / "data"  # the ranking keeps what a run was trained on there, ties and all
    data = kept if data is None and (kept / "meta.json").exists() else data
    made = sorted((folder / "artifacts").glob("*/manifest.json"), key=lambda file: file.stat().st_mtime)
    artifact = made[-1].parent if made else export_run(folder, folder / "artifacts", "float32", run.data_path(data))[0]
    dataset = run.dataset(data)
    split = run.split(dataset)
    ranker = engine_ranker(Engine.open(artifact, device="cpu", threads=1), DECODING)
    lists = evaluate({SERVED: ranker}, split, "test", samples=1).systems[SERVED].lists
    return Ranks(
        dataset.name,
        dataset.fingerprint,
        split_name(run),
        run.config.seed,
        tuple(split.sequences.user_ids[user] for user in split.test.users),
        {SERVED: metrics.target_ranks(lists, split.test.target).astype(np.int8)},
    )


def main(
    folders: Annotated[list[Path], typer.Argument(help="Runs, or folders that hold runs.")],
    data: Annotated[Path | None, typer.Option(help="Data set of the runs, if it has moved.")] = None,
) -> None:
    """Writes ranks.npz beside every run below the folders that has none."""
    runs = sorted({file.parent for folder in folders for file in folder.rglob("run.json")})
    if not runs:
        raise typer.BadParameter("holds no run.json: name a run of `gpt4rec train`, or a folder of runs")
    for number, folder in enumerate(runs, 1):
        kept = folder / FILE
        if kept.exists():
            typer.echo(f"{number}/{len(runs)} {kept} exists")
            continue
        served(folder, data).save(kept)
        typer.echo(f"{number}/{len(runs)} wrote {kept}")


if __name__ == "__main__":
    run_command(main)
