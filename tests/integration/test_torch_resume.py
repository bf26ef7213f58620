"""A training whose process is killed goes on: real processes under torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.fleet.torch_launch import torchrun
from loadtests.fleet.torch_resume import SETTINGS, Case, arguments, tried
from tests.support.data_builders import tiny_dataset

pytestmark = pytest.mark.fleet

QUICK = (*SETTINGS, "batch_tokens=100")


def test_torchrun_starts_the_processes_again_and_they_reach_the_weights_of_an_undisturbed_run(tmp_path: Path) -> None:
    data, undisturbed = tmp_path / "data", tmp_path / "undisturbed"
    tiny_dataset(users=40).save(data)
    with torchrun(2, arguments(data, undisturbed, QUICK), tmp_path / "log") as launched:
        assert launched.wait(150.0) == 0, launched.tail()
        assert launched.ranks() == {}
    found = tried(Case("killed", 1, 0), data, undisturbed, tmp_path / "killed", QUICK)
    assert found["epochs_before"] >= 2
    assert found["says_why"]
    assert found["same"], found
