"""Artefacts that many tests read and none changes: each is made once for all tests of a process.

What makes them is imported where it is asked for: `tests/conftest.py` has these fixtures, and most tests need no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from tests.support.increments import Grown

__all__ = ["grown_run", "random_artifact", "tiny_baseline", "tiny_log", "two_versions"]


@pytest.fixture(scope="session")
def random_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_artifact` makes by itself. Who damages one, or publishes another beside it, makes its own."""
    from tests.support.artifacts import write_artifact

    return write_artifact(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions of a model, of different weights, beside each other in one folder."""
    from tests.support.artifacts import write_artifact

    root = tmp_path_factory.mktemp("versions")
    return write_artifact(root), write_artifact(root, seed=1)


@pytest.fixture(scope="session")
def grown_run(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A finished run on the first part of a small log, and the later events that increments learn."""
    from tests.support.increments import grown

    return grown(tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="session")
def tiny_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set that is large enough to learn the weights of signals from."""
    from tests.support.data_builders import tiny_dataset

    folder = tmp_path_factory.mktemp("tiny")
    tiny_dataset(users=200).save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_baseline(tiny_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports a scorer that was fitted to `tiny_log`, once each."""
    from export.from_baseline import export_baseline

    out, made = tmp_path_factory.mktemp("baselines"), dict[str, Path]()

    def exported(name: str) -> Path:
        if name not in made:
            made[name] = export_baseline(cast("Any", name), tiny_log, out)
        return made[name]

    return exported
