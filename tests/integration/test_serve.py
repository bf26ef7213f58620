"""The whole service as processes: real artefact, real engine, real Valkey, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest
import torch

from tests.support.artifacts import random_parts, write_artifact
from tests.support.networks import random_network
from tests.support.processes import OPS, PATIENT, Serve, eventually_rung, items_of, post, recommend, serve
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


def test_toggle_reaches_every_replica_and_outlives_a_restart(artifact: Path, tmp_path: Path, valkey: Valkey) -> None:
    where = ("--artifact", str(artifact), "--redis", valkey.url)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with serve(tmp_path / "a", *where, **PATIENT) as one:
        with serve(tmp_path / "b", *where, **PATIENT) as two:
            command = [
                sys.executable, "-m", "service.cli", "ops", "fallback", "set", "fallback",
                "--reason", "drill", "--url", str(one.client.base_url), "--token", "tok", "--json",
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True)
            _reaches(two, "fallback", time.monotonic())
            for mode in ("auto", "fallback"):
                began = time.monotonic()
                two.client.put("/ops/fallback", headers=OPS, json={"mode": mode, "reason": "drill"})
                _reaches(one, mode, began)
        with serve(tmp_path / "c", *where, **PATIENT) as three:
            eventually_rung(three, "nobody", "popular")
            assert recommend(three, user_id="nobody")["reason"] == "forced"


def _reaches(service: Serve, mode: str, began: float) -> None:
    """Within a second; the rest is for the test machine."""
    while service.client.get("/ops/fallback", headers=OPS).json()["mode"] != mode:
        assert time.monotonic() - began < 5.0
        time.sleep(0.01)


def test_a_graceful_stop_answers_what_it_accepted(artifact: Path, tmp_path: Path, valkey: Valkey) -> None:
    with serve(
        tmp_path, "--artifact", str(artifact), "--redis", valkey.url, GPT4REC_SHUTDOWN_DELAY_S="1", **PATIENT
    ) as service:
        assert service.client.get("/readyz").status_code == 200
        service.process.terminate()
        until = time.monotonic() + 10.0
        while service.client.get("/readyz").status_code == 200:
            assert time.monotonic() < until
        assert recommend(service, user_id="u1")["rung"] == "full"
        assert post(service, "u1", "1").status_code == 200
        assert service.client.get("/ops/status", headers=OPS).status_code == 503
        assert service.process.wait(30.0) == 0
        assert '"stopping"' in service.log


def _flip(folder: Path) -> None:
    graph = folder / "decoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")


def _drop(folder: Path) -> None:
    (folder / "trie.npz").unlink()


def _age(folder: Path) -> None:
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest | {"format_version": 999}))


@pytest.mark.parametrize(
    ("damage", "named"), [(_flip, "decoder.onnx"), (_drop, "trie.npz"), (_age, "format")], ids=["flip", "drop", "age"]
)
def test_bad_artefact_is_refused(damage: Callable[[Path], None], named: str, artifact: Path, tmp_path: Path) -> None:
    """At the start, by name; there is no other moment yet at which a model is taken in."""
    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    damage(broken)
    assert named in _refusal(broken)


def test_bad_artefact_is_refused_also_where_only_its_numbers_are_bad(tmp_path: Path) -> None:
    """Every checksum fits, but the model says nothing: it is not warm, so nothing listens."""
    network = random_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    assert "cannot be warmed up" in _refusal(write_artifact(tmp_path, random_parts(network)))


def _refusal(artifact: Path) -> str:
    """What `serve` says last, in one line, before it exits with 1."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--artifact", str(artifact)],
        capture_output=True, text=True, check=False, cwd=artifact.parent,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_several_workers_share_one_port(artifact: Path, tmp_path: Path) -> None:
    items = items_of(artifact)
    data = ("--data-dir", str(tmp_path / "data"), "--workers", "2")
    with serve(tmp_path, "--artifact", str(artifact), *data, **PATIENT) as service:
        assert post(service, "u1", *items[:5]).status_code == 200
        answered = 0
        for port in (service.port + 1, service.port + 2):
            direct = httpx.post(f"http://127.0.0.1:{port}/recommend", json={"user_id": "u1"}, timeout=30.0)
            assert direct.json()["rung"] == "full"
            metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30.0).text
            answered += "gpt4rec_recommendations_total" in metrics
        assert answered == 2
        for _ in range(4):  # whichever worker is asked
            together = httpx.get(f"http://127.0.0.1:{service.port}/metrics", timeout=30.0).text
            counts = [line for line in together.splitlines() if line.startswith("gpt4rec_recommendations_total")]
            assert sum(float(line.rpartition(" ")[2]) for line in counts) == 2.0
            assert together.count("# TYPE gpt4rec_model_info gauge") == 1
        assert service.stop(signal.SIGHUP) == 0


def test_a_worker_that_hangs_is_replaced_and_workers_end_with_a_killed_supervisor(
    artifact: Path, tmp_path: Path, valkey: Valkey
) -> None:
    where = ("--artifact", str(artifact), "--redis", valkey.url, "--workers", "2")
    with serve(tmp_path, *where, GPT4REC_WORKER_TIMEOUT_S="3", **PATIENT) as service:
        first = _workers(service)
        os.kill(int(first[0]), signal.SIGSTOP)
        while Path(f"/proc/{first[0]}").exists():  # every new connection is answered meanwhile
            assert httpx.post(f"{service.client.base_url}/recommend", json={"user_id": "u"}, timeout=30.0).is_success
        until = time.monotonic() + 60.0
        while _replaced(service) < 1:
            assert time.monotonic() < until, service.log
            time.sleep(0.05)
        assert "worker_hangs" in service.log
        started = _workers(service)
        assert len(started) == 2
        assert set(started) != set(first)
        service.kill9()
        until = time.monotonic() + 30.0
        while left := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < until, left
            time.sleep(0.05)
        with pytest.raises(httpx.ConnectError):
            service.client.get("/healthz")
    assert "supervisor_died" in service.log


def _replaced(service: Serve) -> float:
    """How many workers were replaced; 0 while one of them does not answer."""
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("gpt4rec_worker_replaced_total"))


def _workers(service: Serve) -> list[str]:
    """The process ids of the workers."""
    supervisor = service.process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text("utf-8").split()
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_an_open_loop_load_is_answered(artifact: Path, tmp_path: Path, valkey: Valkey) -> None:
    file = tmp_path / "load.json"
    with serve(tmp_path, "--artifact", str(artifact), "--redis", valkey.url, **PATIENT) as service:
        command = [
            sys.executable, "-m", "loadtests.load", "--url", str(service.client.base_url), "--rate", "60",
            "--seconds", "3", "--users", "20", "--history", "6", "--json", str(file),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    report = orjson.loads(file.read_bytes())
    assert report["errors"] == {}
    assert sum(route["count"] for route in report["routes"].values()) > 100
    assert report["routes"]["/recommend"]["p50"] > 0
    assert report["rungs"]["full"]["share"] > 0
    assert "/recommend" in done.stdout
