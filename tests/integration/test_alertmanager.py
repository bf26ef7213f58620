"""A real Alertmanager with the configuration of the deployment: what it tells of a fault, and what it mutes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml

from loadtests.harness.prometheus import prometheus, scaled
from loadtests.harness.served_process import free_port, listening
from tests.support.alerts import CONFIG, FOLDER, Alert, muted, timeline
from tests.support.faults_told import CAUSES, FAULTS, LASTS, WELL

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(PROGRAM is None, reason="no Alertmanager (Debian: prometheus-alertmanager)"),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)"),
]
_LAST = "Gpt4recTold"


class Told:
    """Receives what Alertmanager sends."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.messages.append((self.path.strip("/"), orjson.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def of(self, receiver: str) -> list[list[Alert]]:
        """The labels of the alerts of each message to a receiver."""
        return [[one["labels"] for one in body["alerts"]] for name, body in self.messages if name == receiver]


@contextmanager
def alertmanager(folder: Path) -> Iterator[tuple[str, Told]]:
    """Runs Alertmanager with the deployment's configuration, its receivers pointed here and its waits shortened."""
    told = Told()
    thread = threading.Thread(target=told.server.serve_forever, daemon=True)
    thread.start()
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    for receiver in config["receivers"]:
        url = f"http://127.0.0.1:{told.server.server_port}/{receiver['name']}"
        receiver["webhook_configs"] = [{"url": url, "send_resolved": False}]
    config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    command = [
        str(PROGRAM), f"--config.file={path}", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    try:
        with listening(command, port, "/-/ready", folder / "log", {}) as (_, url, _ready_s):
            yield url, told
    finally:
        told.server.shutdown()
        told.server.server_close()
        thread.join(10.0)


def test_a_real_alertmanager_tells_once_of_each_cause_and_mutes_what_this_project_says_it_mutes(tmp_path: Path) -> None:
    # Each fault in a cluster of its own: no rule reaches from one to another.
    firing = [
        {**alert, "cluster": fault}
        for fault, series in FAULTS.items()
        for alert in timeline(series(), [WELL + LASTS - 1])[0]
    ]
    assert len([alert for alert in firing if alert["severity"] == "page"]) > 2 * len(FAULTS)
    with alertmanager(tmp_path) as (url, told), httpx.Client(base_url=url, trust_env=False, timeout=10.0) as client:
        post(client, firing)
        wait(lambda: len(told.of("pages")) >= len(FAULTS))
        # Its message is sent after all others of the faults.
        post(client, [{"alertname": _LAST, "severity": "page"}])
        wait(lambda: any(alerts[0]["alertname"] == _LAST for alerts in told.of("pages")))
        found = client.get("/api/v2/alerts").raise_for_status().json()
    pages = [alerts for alerts in told.of("pages") if alerts[0]["alertname"] != _LAST]
    assert sorted((alert["cluster"], alert["alertname"]) for alerts in pages for alert in alerts) == sorted(
        CAUSES.items()
    )
    assert all(len(alerts) == 1 for alerts in pages)
    states = {frozenset(one["labels"].items()): bool(one["status"]["inhibitedBy"]) for one in found}
    for alert in firing:
        assert states[frozenset(alert.items())] is muted(alert, firing), alert


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus (Debian: prometheus)")
def test_a_real_prometheus_tells_it_of_a_replica_that_is_down(tmp_path: Path) -> None:
    """With the section of the deployment's file, of which only the address is another one."""
    section = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["alerting"]
    rules = scaled((FOLDER / "fleet.yml").read_text("utf-8"), 120.0)
    with alertmanager(tmp_path) as (url, told):
        section["alertmanagers"][0]["static_configs"][0]["targets"] = [url.removeprefix("http://")]
        nobody = f"http://127.0.0.1:{free_port()}"
        with prometheus([nobody], rules=rules, alerting=section):
            wait(lambda: bool(told.of("pages")))
    [[alert]] = told.of("pages")[:1]
    assert (alert["alertname"], alert["job"], alert["severity"]) == ("Gpt4recReplicasDown", "gpt4rec", "page")


def post(client: httpx.Client, alerts: list[Any]) -> None:
    client.post("/api/v2/alerts", json=[{"labels": dict(alert)} for alert in alerts]).raise_for_status()


def wait(there: Callable[[], bool], within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < until, "nothing was told in time"
        time.sleep(0.05)
