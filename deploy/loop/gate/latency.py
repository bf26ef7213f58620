"""Times two artefacts in turns, so that other work of the machine affects both alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.loop.gate.lists import Contender
from deploy.loop.gate.questions import Question
from model.evaluation.bootstrap import Interval, paired_bootstrap

K = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from events to a list of 20, one request at a time.

    Attributes:
        candidate: Median and 95th percentile.
        champion: The same of the champion.
        interval: Mean paired difference with its 95 % interval, milliseconds.
        ratio: Median of the candidate as a multiple of the champion's.
    """

    candidate: tuple[float, float]
    champion: tuple[float, float]
    interval: Interval
    ratio: float

    def to_json(self) -> dict[str, Any]:
        """Returns the figures."""
        return asdict(self)


def latency(candidate: Contender, champion: Contender, questions: Sequence[Question], runs: int) -> Latency:
    """Times both on the same questions, `runs` of each; who goes first alternates."""
    both = (candidate, champion)
    jobs = [[one.job(questions[n % len(questions)], K) for one in both] for n in range(min(runs, len(questions)))]
    for one in both:
        one.engine.warm_up()
    taken = np.zeros((2, runs))
    for n in range(runs):
        for which in (0, 1) if n % 2 else (1, 0):
            began = time.perf_counter()
            both[which].engine.run([jobs[n % len(jobs)][which]])
            taken[which, n] = (time.perf_counter() - began) * 1000
    ours, theirs = ((float(np.median(ms)), float(np.percentile(ms, 95))) for ms in taken)
    return Latency(ours, theirs, paired_bootstrap(taken[0], taken[1], samples=2000), ours[0] / max(theirs[0], 1e-9))


def megabytes(contender: Contender) -> float:
    """Returns the size of all files that an artefact names."""
    folder: Path = contender.artifact.folder
    names = contender.artifact.manifest["files"]
    total: int = sum((folder / name).stat().st_size for name in names)
    return total / 1e6
