"""The service behind other HTTP servers: the same answers, the same stop, and a refusal of what they cannot do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.api import other_servers
from service.common.errors import SettingsError
from service.settings.service_settings import Settings
from tests.support.processes import PATIENT, serve
from tests.support.valkey import Valkey

OTHERS = ("granian", "hypercorn")


@pytest.mark.parametrize("server", OTHERS)
def test_another_server_gives_the_same_answers_and_stops_in_order(
    random_artifact: Path, tmp_path: Path, valkey: Valkey, server: str
) -> None:
    pytest.importorskip(server)
    where = ("--artifact", str(random_artifact), "--redis", valkey.url)
    with serve(tmp_path, *where, GPT4REC_HTTP_SERVER=server, **PATIENT) as service:
        answer = service.client.post("/recommend", json={"events": [{"item_id": "1"}], "k": 3})
        faulty = service.client.post("/recommend", content=b"{")
        shown = service.client.request("HEAD", "/healthz")
        assert service.stop() == 0
    assert (answer.status_code, len(answer.json()["items"])) == (200, 3)
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (faulty.status_code, faulty.headers["content-type"]) == (400, "application/problem+json")
    assert (shown.status_code, shown.content) == (200, b"")


def _said(*arguments: str, **environment: str) -> str:
    command: Sequence[str] = [sys.executable, "-m", "service.cli", "serve", "--artifact", "nowhere", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_an_unknown_server_is_refused_by_the_name_of_the_setting() -> None:
    said = _said(GPT4REC_HTTP_SERVER="apache")
    assert "GPT4REC_HTTP_SERVER" in said or "http_server" in said
    assert "granian" in said


def test_a_server_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_servers, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"GPT4REC_HTTP_SERVER: granian is not installed.*gpt4rec\[servers\]"):
        other_servers.require(Settings(http_server="granian"))


@pytest.mark.skipif(importlib.util.find_spec("granian") is None, reason="not installed")
def test_another_server_has_one_worker() -> None:
    with pytest.raises(SettingsError, match="GPT4REC_WORKERS"):
        other_servers.require(Settings(http_server="granian", workers=2))
