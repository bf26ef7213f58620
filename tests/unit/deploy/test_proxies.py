"""The configurations of HAProxy and nginx: the programs accept them, and their figures fit those of the service."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from loadtests.fleet.proxies import FILES, NAMES, WRITTEN, ProxyName, command, installed, rendered
from service.settings.service_settings import Settings

PORTS = (18001, 18002, 18003)
KEEP_ALIVE_S = 75.0  # of `service.server`


def text(name: ProxyName) -> str:
    """The directives of a file, without comments."""
    return re.sub(r"(?m)^\s*#.*\n", "", FILES[name].read_text(encoding="utf-8"))


def seconds(name: ProxyName, directive: str) -> float:
    """The shortest time that a file gives to a directive."""
    found = [float(n) for n in re.findall(rf"(?m)^\s*{directive}\s+(\d+)s;?\s*$", text(name))]
    assert found, directive
    return min(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_program_accepts_its_configuration(name: ProxyName, tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"needs {name}")
    config = tmp_path / FILES[name].name
    config.write_text(rendered(name, tmp_path, PORTS, 18080, 18081), encoding="utf-8")
    done = subprocess.run(command(name, config, check=True), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("name", NAMES)
def test_only_addresses_and_paths_are_replaced(name: ProxyName, tmp_path: Path) -> None:
    before = FILES[name].read_text(encoding="utf-8").splitlines()
    after = rendered(name, tmp_path, PORTS, 18080, 18081).splitlines()
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert all(re.search(r"127\.0\.0\.1:80|/run/|8080", line) for line in changed)
    assert not any(address in line for address in WRITTEN for line in after)


def test_answers_have_more_time_than_the_service_takes() -> None:
    settings = Settings()
    longest_s = max(settings.deadline_max_ms, settings.redis_durability_timeout_ms) / 1000.0
    assert seconds("haproxy", "timeout server") > longest_s
    assert seconds("nginx", "proxy_read_timeout") > longest_s


def test_the_proxies_close_idle_connections_before_the_service_does() -> None:
    assert float(re.findall(r"pool-purge-delay (\d+)s", text("haproxy"))[0]) < KEEP_ALIVE_S
    assert seconds("nginx", "keepalive_timeout") < KEEP_ALIVE_S
    server = (Path(__file__).parents[3] / "service" / "server.py").read_text(encoding="utf-8")
    assert f"timeout_keep_alive={KEEP_ALIVE_S:g}" in server


def test_what_operators_do_is_never_sent_twice() -> None:
    operators = text("haproxy").split("\nbackend gpt4rec_operators")[1]
    assert re.findall(r"(?m)^\s*retry-on (.*)$", operators) == ["conn-failure"]
    operators = text("nginx").split("listen 127.0.0.1:8081")[1]
    assert re.findall(r"proxy_next_upstream (.*);", operators) == ["error"]  # without non_idempotent
