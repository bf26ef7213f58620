"""docker-compose.yml and the YAML of deploy/: valid, and everything they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from service.settings.service_settings import variable_names

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
# Files that the operator creates before the first start.
_OWN = ("./artifacts", "./first", "./secrets/")


def parsed(compose: dict[str, Any]) -> PyCompose:
    """Parses by the Compose specification, anchors resolved. Raises ValueError."""
    return PyCompose.from_yaml(yaml.safe_dump({key: one for key, one in compose.items() if not key.startswith("x-")}))


def test_the_file_is_valid_by_the_compose_specification() -> None:
    assert set(parsed(COMPOSE).service_names()) == {
        "gpt4rec",
        "valkey",
        "prometheus",
        "alertmanager",
        "grafana",
        "broker",
        "ingest",
        "sink",
        "loop",
    }


def test_the_specification_would_have_found_a_fault() -> None:
    faulty = {**COMPOSE, "services": {**SERVICES, "valkey": {**SERVICES["valkey"], "healthchek": {}}}}
    with pytest.raises(ValueError, match="healthchek"):
        parsed(faulty)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_pinned_hardened_and_watched(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert re.match(r"v?\d", tag), service["image"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for other, condition in service.get("depends_on", {}).items():
        assert "healthcheck" in SERVICES[other]
        assert condition == {"condition": "service_healthy"}


def test_every_file_volume_and_secret_that_is_named_exists() -> None:
    for service in SERVICES.values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert source.startswith(_OWN) or (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
    assert all(secret["file"].startswith(_OWN) for secret in COMPOSE["secrets"].values())


def test_secrets_are_files_and_settings_are_the_services_own() -> None:
    environment = SERVICES["gpt4rec"]["environment"]
    assert set(environment) <= set(variable_names())
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if any(word in name for word in ("TOKEN", "PASSWORD", "KEY")):
                assert name.endswith("_FILE")
                assert Path(value).name in service["secrets"]


def test_redis_writes_an_append_only_file() -> None:
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"


def test_prometheus_scrapes_the_service_and_has_the_rules() -> None:
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in PROMETHEUS["scrape_configs"]}
    assert targets["gpt4rec"] == ["gpt4rec:8000"]
    mounted = {mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in PROMETHEUS["rule_files"]} <= mounted


def test_alerts_reach_an_alertmanager_that_mutes_what_has_another_cause() -> None:
    [named] = PROMETHEUS["alerting"]["alertmanagers"]
    assert named == {"static_configs": [{"targets": ["alertmanager:9093"]}]}
    alertmanager = SERVICES["alertmanager"]
    assert alertmanager["ports"] == ["127.0.0.1:9093:9093"]
    [file] = [one.partition("=")[2] for one in alertmanager["command"] if one.startswith("--config.file=")]
    [source] = [mount.split(":")[0] for mount in alertmanager["volumes"] if mount.split(":")[1] == file]
    assert yaml.safe_load((ROOT / source).read_text(encoding="utf-8"))["inhibit_rules"]
    # A fault in its file must not keep the service from being watched.
    assert "alertmanager" not in SERVICES["prometheus"]["depends_on"]


def test_the_stop_is_waited_for() -> None:
    assert int(SERVICES["gpt4rec"]["stop_grace_period"].removesuffix("s")) > 10


def test_yaml_files_are_without_faults_of_their_own() -> None:
    files = [str(ROOT / "docker-compose.yml"), *map(str, sorted((ROOT / "deploy").rglob("*.y*ml")))]
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", str(ROOT / ".yamllint.yaml"), *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
