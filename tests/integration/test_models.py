"""The model is changed while the service answers: nothing fails, nothing is mixed, and a bad one changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from service.artifact.manifest import FORMAT_VERSION, MANIFEST
from service.cli.ops import app
from tests.support.processes import OPS, PATIENT, Serve, ids, items_of, post, recommend, serve
from tests.support.valkey import Valkey

QUESTION = {"user_id": "u1", "k": 8, "decoding": {"strategy": "beam"}, "segment": "active"}
# What is let go is let go soon.
QUICK = {**PATIENT, "GPT4REC_CATCH_UP_TIMEOUT_MS": "300", "GPT4REC_MODE_POLL_MS": "100"}


def damage_content(folder: Path) -> None:
    file = folder / "items.npz"
    file.write_bytes(file.read_bytes()[:-64] + b"\0" * 64)


def truncate(folder: Path) -> None:
    file = folder / "decoder.onnx"
    file.write_bytes(file.read_bytes()[:1000])


def take_away(folder: Path) -> None:
    (folder / "trie.npz").unlink()


def another_format(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format_version": FORMAT_VERSION + 1}))


def tear_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:200])


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "content": (damage_content, "items.npz"),
    "truncated": (truncate, "decoder.onnx"),
    "missing": (take_away, "trie.npz"),
    "format": (another_format, "format version"),
    "manifest": (tear_manifest, MANIFEST),
}


@dataclass
class Load:
    """Asks the same question again and again, from several connections."""

    url: str
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30.0) as client:
            while not self._ended.is_set():
                answer = client.post("/recommend", json=QUESTION)
                if answer.status_code == 200:
                    self.answers.append(answer.json())
                else:
                    self.failures.append(answer.text)

    def more(self, n: int = 20) -> None:
        """Waits for so many answers more."""
        wanted = len(self.answers) + n
        eventually(lambda: len(self.answers) >= wanted or bool(self.failures))


def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def models(service: Serve) -> dict[str, Any]:
    answer = service.client.get("/ops/models", headers=OPS)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def activate(service: Serve, version: str) -> httpx.Response:
    return service.client.post(f"/ops/models/{version}/activate", headers=OPS, json={"reason": "a test"})


def fault_of(service: Serve, version: str) -> str | None:
    fault: str | None = next(m["fault"] for m in models(service)["models"] if m["version"] == version)
    return fault


@pytest.fixture(scope="module")
def made(two_versions: tuple[Path, Path]) -> tuple[Path, Path]:
    return two_versions


@pytest.fixture
def folders(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two versions beside each other, to be damaged at will."""
    one, two = (Path(shutil.copytree(path, tmp_path / "models" / path.name)) for path in made)
    return one, two


@pytest.fixture
def service(folders: tuple[Path, Path], tmp_path: Path, shared_valkey: Valkey) -> Iterator[Serve]:
    prefix = {"GPT4REC_REDIS_PREFIX": f"{tmp_path.name}:"}
    with serve(tmp_path, "--artifact", str(folders[0]), "--redis", shared_valkey.url, **QUICK, **prefix) as running:
        assert post(running, "u1", *items_of(folders[0])[:6]).status_code == 200
        yield running


def test_bad_artefact_is_refused_and_the_old_model_keeps_serving_under_load(
    service: Serve, folders: tuple[Path, Path], made: tuple[Path, Path]
) -> None:
    old, new = folders
    with Load(str(service.client.base_url)) as load:
        load.more()
        for name, (damage, named) in FAULTS.items():
            shutil.rmtree(new)
            shutil.copytree(made[1], new)
            damage(new)
            refused = activate(service, new.name)
            assert refused.status_code == 422, (name, refused.text)
            assert named in refused.json()["detail"] and str(old.parent) not in refused.text
            assert models(service)["active"] == old.name
            assert named in (fault_of(service, new.name) or "")
            load.more(5)
        audit = service.client.get("/ops/audit", headers=OPS).json()["entries"]
        metrics = service.client.get("/metrics").text
        shutil.rmtree(new)
        shutil.copytree(made[1], new)
        assert activate(service, new.name).status_code == 200
        load.more()
    assert not load.failures
    assert [(e["actor"], e["action"]) for e in audit] == [("alice", "model_refused")] * len(FAULTS)
    assert f'gpt4rec_model_reload_total{{outcome="refused"}} {len(FAULTS)}.0' in metrics
    assert load.answers[-1]["model_version"] == new.name


def test_activation_under_load_loses_no_request_and_no_list_is_mixed(
    service: Serve, folders: tuple[Path, Path]
) -> None:
    old, new = folders
    with Load(str(service.client.base_url)) as load:
        load.more()
        for version in (new.name, old.name, new.name):
            assert activate(service, version).json()["active"] == version
            load.more()
        eventually(lambda: "model_let_go" in service.log)
        load.more()
    assert not load.failures
    lists: dict[str, set[tuple[str, ...]]] = {old.name: set(), new.name: set()}
    for answer in load.answers:
        if answer["source"] == "gpt4rec":
            lists[answer["model_version"]].add(tuple(ids(answer)))
    # One question, one state: each model has one answer, and not the other's.
    assert {name: len(found) for name, found in lists.items()} == {old.name: 1, new.name: 1}
    assert lists[old.name] != lists[new.name]
    assert {answer["rung"] for answer in load.answers} == {"full"}
    metrics = service.client.get("/metrics").text
    assert f'gpt4rec_model_info{{version="{new.name}"}} 1.0' in metrics
    assert f'version="{old.name}"' not in metrics
    assert service.client.get("/version").json()["model_version"] == new.name


def test_a_choice_reaches_every_replica_and_one_without_the_folder_says_so_and_goes_on(
    folders: tuple[Path, Path], tmp_path: Path, shared_valkey: Valkey
) -> None:
    old, new = folders
    poor = Path(shutil.copytree(old, tmp_path / "poor" / old.name))
    common = {**QUICK, "GPT4REC_REDIS_PREFIX": f"{tmp_path.name}:"}
    redis = ("--redis", shared_valkey.url)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        serve(tmp_path / "a", "--artifact", str(old), *redis, **common) as one,
        serve(tmp_path / "b", "--artifact", str(poor), *redis, **common) as lacking,
    ):
        assert post(one, "u1", *items_of(old)[:6]).status_code == 200
        assert activate(one, new.name).json()["shared"] is True
        eventually(lambda: "is not here" in (models(lacking)["fault"] or ""))
        assert models(lacking)["active"] == recommend(lacking, **QUESTION)["model_version"] == old.name
        eventually(lambda: {r["active"] for r in models(one)["replicas"]} == {old.name, new.name})
        assert 'gpt4rec_model_reload_total{outcome="missing"} 1.0' in lacking.client.get("/metrics").text

        shutil.copytree(new, poor.parent / new.name)
        eventually(lambda: models(lacking)["active"] == new.name)
        assert ids(recommend(one, **QUESTION)) == ids(recommend(lacking, **QUESTION))
        rolled = lacking.client.post("/ops/models/rollback", headers=OPS).json()
        assert (rolled["active"], rolled["previous"]) == (old.name, None)
        assert lacking.client.post("/ops/models/rollback", headers=OPS).status_code == 409
        eventually(lambda: {r["active"] for r in models(one)["replicas"]} == {old.name})


def test_a_choice_outlives_restarts_and_the_absence_of_redis(
    folders: tuple[Path, Path], tmp_path: Path, valkey: Valkey
) -> None:
    old, new = folders
    command = ("--artifact", str(old), "--redis", valkey.url)
    with serve(tmp_path, *command, **QUICK) as first:
        assert activate(first, new.name).status_code == 200
        assert first.stop() == 0
    valkey.kill9()
    with serve(tmp_path, *command, **QUICK) as alone:
        assert models(alone)["active"] == new.name
        answer = activate(alone, old.name).json()
        assert (answer["active"], answer["shared"], answer["replicas"]) == (old.name, False, None)
        valkey.restart()
        eventually(lambda: models(alone)["shared"])
        assert alone.stop() == 0
    (tmp_path / "fresh").mkdir()
    with serve(tmp_path / "fresh", *command, **QUICK) as learned:
        said = models(learned)
        assert (said["active"], said["chosen"], said["version"]) == (old.name, old.name, 2)
        shutil.rmtree(new)
        assert activate(learned, new.name).status_code == 404
        reasons = [e["reason"] for e in learned.client.get("/ops/audit", headers=OPS).json()["entries"]]
        assert reasons == ["a test", "a test"]


def test_the_command_line_lists_activates_and_rolls_back(service: Serve, folders: tuple[Path, Path]) -> None:
    old, new = folders

    def ops(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--url", str(service.client.base_url), "--token", "tok"])

    assert f"* {old.name}" in ops("models", "list").stdout
    nothing = ops("models", "rollback")
    assert nothing.exit_code == 1 and "409: there is no previous version to roll back to" in nothing.stderr
    assert f"* {new.name}" in ops("models", "activate", new.name, "--reason", "drill").stdout
    assert f"* {old.name}" in ops("models", "rollback").stdout
    truncate(new)
    refused = ops("models", "activate", new.name)
    assert refused.exit_code == 1 and "422: decoder.onnx" in refused.stderr
    assert "decoder.onnx" in ops("models", "list").stdout
