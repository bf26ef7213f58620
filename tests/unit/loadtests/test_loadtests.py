"""The load generator and the engine benchmark: what they send, what they count, whom they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests.load.__main__ import schedule
from loadtests.load.items import read_items
from loadtests.load.open_loop_driver import Arrival, is_loopback
from loadtests.load.replay import EVENTS, RECOMMEND


def module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"loadtests.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def arrivals(seed: int, rate: float = 200.0, seconds: float = 50.0, events_share: float = 0.3) -> list[Arrival]:
    return schedule(
        np.random.default_rng(seed), rate=rate, seconds=seconds, users=["a", "b"], items=["1", "2", "3"],
        events_share=events_share, k=5, now_ms=1_700_000_000_000,
    )  # fmt: skip


def test_arrivals_are_a_poisson_process_of_the_asked_rate() -> None:
    gaps = np.diff([0.0, *(arrival.due_s for arrival in arrivals(0))])
    assert len(gaps) == pytest.approx(10_000, rel=0.05)
    assert gaps.min() >= 0.0
    # The gaps of a Poisson process are exponential: their mean is their standard deviation.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_the_same_seed_sends_the_same_requests() -> None:
    assert arrivals(1, seconds=2.0) == arrivals(1, seconds=2.0) != arrivals(2, seconds=2.0)


@pytest.mark.parametrize(("share", "paths"), [(0.0, {RECOMMEND}), (1.0, {EVENTS}), (0.5, {RECOMMEND, EVENTS})])
def test_the_mix_is_what_was_asked_for(share: float, paths: set[str]) -> None:
    assert {arrival.path for arrival in arrivals(0, seconds=2.0, events_share=share)} == paths


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False), ("198.51.100.7", False)],
)
def test_only_this_machine_is_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_another_machine_is_refused_unless_allowed() -> None:
    done = module("load", "--url", "http://192.0.2.1:80", "--seconds", "1")
    assert done.returncode == 2
    assert "--allow-remote" in done.stderr


def test_without_a_service_there_is_no_run() -> None:
    done = module("load", "--url", "http://127.0.0.1:1", "--seconds", "1")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "no run" in done.stderr


def test_the_benchmark_times_every_case(random_artifact: Path, tmp_path: Path) -> None:
    assert len(read_items(random_artifact)) == 40
    file = tmp_path / "bench.json"
    done = module("engine.bench", "--artifact", str(random_artifact), "--seconds", "0", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "decode" in done.stdout
    report = orjson.loads(file.read_bytes())
    cases = {(case["what"], case["width"], case["batch"]) for case in report["cases"]}
    assert cases == {
        *((what, None, batch) for what in ("encode 1 event", "encode 50 events") for batch in (1, 8, 32)),
        *(("decode beam", width, batch) for width in (16, 64, 128) for batch in (1, 8, 32)),
        *(("decode top_p", 16, batch) for batch in (1, 8, 32)),
    }
    for case in report["cases"]:
        assert 0.0 < case["ms"]["p50"] <= case["ms"]["p99"] <= case["ms"]["max"]


def test_the_benchmark_compares_layouts_of_threads(random_artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "layout.json"
    done = module("engine.bench", "--artifact", str(random_artifact), "--layout", "--seconds", "0", "--json", str(file))
    assert done.returncode == 0, done.stderr
    cases = orjson.loads(file.read_bytes())["cases"]
    assert {case["batch"] for case in cases} == {1, 8, 32}
    assert {(case["threads"], case["callers"]) for case in cases} >= {(1, 1)}
    assert len(cases) == 3 * 5
    for case in cases:
        assert 0.0 < case["ms"]["p50"] <= case["ms"]["p99"]
        assert case["lists_per_s"] > 0.0


def test_the_benchmark_counts_nodes_and_copies_on_each_device(random_artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--artifact", str(random_artifact), "--seconds", "0", "--device", "cpu", "--profile", str(tmp_path)]
    done = module("engine.bench", *arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    nodes = orjson.loads(file.read_bytes())["nodes"]
    assert [(graph, provider, copies) for graph, provider, _, copies in nodes] == [
        (graph, "CPUExecutionProvider", 0) for graph in ("encoder", "decoder", "sampler")
    ]
    assert all(count > 50 for _, _, count, _ in nodes)


def test_the_benchmark_names_a_bad_artefact(tmp_path: Path) -> None:
    done = module("engine.bench", "--artifact", str(tmp_path / "nothing"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
