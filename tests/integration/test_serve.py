"""The whole service as processes: real artefact, real engine, real Valkey, real signals."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.artifacts import write_artifact
from tests.processes import Serve, serve
from tests.valkey import Valkey

T = 1_700_000_000_000
OPS = {"Authorization": "Bearer tok"}
# A busy test machine must not look like an overloaded service.
PATIENT = {
    "GPT4REC_DEADLINE_MS": "2000",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "500",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "1000",
    "GPT4REC_OPS_TOKENS": "alice:tok",
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifacts"))


def items_of(artifact: Path) -> list[str]:
    from export.artifact import Artifact

    return list(Artifact.open(artifact).catalogue.item_ids)


def post(service: Serve, user: str, *items: str, start_ms: int = T) -> httpx.Response:
    events = [
        {"user_id": user, "item_id": item, "type": "click", "timestamp": start_ms + n * 1000}
        for n, item in enumerate(items)
    ]
    return service.client.post("/events", json={"events": events})


def recommend(service: Serve, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def eventually_rung(service: Serve, user: str, rung: str, within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while (answer := recommend(service, user_id=user))["rung"] != rung:
        assert time.monotonic() < until, answer
        time.sleep(0.05)


def test_acknowledged_event_survives_a_crash_of_the_service(artifact: Path, tmp_path: Path) -> None:
    """kill -9 of the service and its embedded server, start again: all is there."""
    items = items_of(artifact)
    where = ("--artifact", str(artifact), "--redis", "embedded", "--data-dir", str(tmp_path / "data"))
    with serve(tmp_path, *where, GPT4REC_REDIS_DURABILITY="aof", **PATIENT) as service:
        assert recommend(service, user_id="u1")["segment"] == "new"
        assert post(service, "u1", *items[:6]).json()["accepted"] == 6
        assert recommend(service, user_id="u1")["rung"] == "full"
        service.kill9()
    with serve(tmp_path, *where, **PATIENT) as service:
        user = service.client.get("/users/u1", headers=OPS).json()
        assert [event["item_id"] for event in user["history"]] == items[:6]
        answer = recommend(service, user_id="u1", k=5)
        assert answer["rung"] == "full"
        assert not {item["item_id"] for item in answer["items"]} & set(items[:6])
        assert service.client.get("/version").json()["model_version"] == artifact.name
        assert service.stop() == 0


def test_recommend_always_answers_while_redis_is_killed(artifact: Path, tmp_path: Path, valkey: Valkey) -> None:
    items = items_of(artifact)
    with serve(tmp_path, "--artifact", str(artifact), "--redis", valkey.url, **PATIENT) as service:
        assert post(service, "u1", *items[:6]).status_code == 200
        eventually_rung(service, "u1", "full")
        statuses: list[int] = []
        done = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=service.client.base_url, timeout=30.0) as client:
                while not done.is_set():
                    statuses.append(client.post("/recommend", json={"user_id": "u1"}).status_code)

        threads = [threading.Thread(target=load) for _ in range(3)]

        def more_answers(number: int) -> None:
            wanted, until = len(statuses) + number, time.monotonic() + 30.0
            while len(statuses) < wanted:
                assert time.monotonic() < until
                time.sleep(0.01)

        for thread in threads:
            thread.start()
        more_answers(20)
        valkey.kill9()
        more_answers(20)
        refused = post(service, "u1", items[7], start_ms=T + 100_000)
        answer = recommend(service, user_id="u1")
        ready = service.client.get("/readyz")
        valkey.restart()
        eventually_rung(service, "u1", "full")
        done.set()
        for thread in threads:
            thread.join()
        stored = service.client.get("/users/u1", headers=OPS).json()["history"]
    assert set(statuses) == {200}
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert (answer["source"], answer["degraded"]) == ("popular", True)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert [event["item_id"] for event in stored] == items[:6]


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
            began = time.monotonic()
            while two.client.get("/ops/fallback", headers=OPS).json()["mode"] != "fallback":
                assert time.monotonic() - began < 10.0
                time.sleep(0.01)
        with serve(tmp_path / "c", *where, **PATIENT) as three:
            eventually_rung(three, "nobody", "popular")
            assert recommend(three, user_id="nobody")["reason"] == "forced"


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
        assert post(service, "u1", "1").status_code == 503
        assert service.process.wait(30.0) == 0
        assert '"stopping"' in service.log


def test_a_bad_artefact_stops_the_start_and_names_the_file(artifact: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    (broken / "decoder.onnx").write_bytes((broken / "decoder.onnx").read_bytes()[:-1] + b"\0")
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--artifact", str(broken)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "decoder.onnx" in done.stderr.splitlines()[-1]


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
        assert service.stop() == 0
