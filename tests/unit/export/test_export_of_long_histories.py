"""The parity gate of a log with a robot in it: memory follows from what the encoder reads, not from the history."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np

from export import artifact_writer
from export.parity_gate import Probe
from model.network.encoders.registry import receptive_field
from tests.support.artifacts import random_parts
from tests.support.histories import random_history
from tests.support.networks import random_network

EVENTS = 20_000  # a mask over all pairs of them alone takes 1.6 GB
MIB = 1024  # ru_maxrss counts KiB


def test_a_history_of_any_length_takes_the_memory_of_what_the_encoder_reads(tmp_path: Path) -> None:
    model = random_network(seed=1)
    long = random_history(np.random.default_rng(0), EVENTS, model.config.n_items)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, result = artifact_writer.export(random_parts(model), tmp_path, "float32", [Probe(long)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * MIB
    assert (result.probes_cut, result.probe_events_max) == (1, 2 * receptive_field(model.config))
    assert not result.failures
