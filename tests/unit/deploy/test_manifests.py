"""The manifests: valid by the Kubernetes API's schemas, rendered by kustomize, and consistent with the service."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.metrics.service_metrics import Metrics
from service.settings.service_settings import Settings, variable_names

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("base", "overlays/gpu")
VERSION = "1.32"
# A kind of the Prometheus operator, for which the API has no schema.
_FOREIGN = "ServiceMonitor"


def rendered(overlay: str) -> dict[str, dict[str, Any]]:
    """The overlay's objects by kind; skips the test without a kustomize that supports components."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / overlay)], check=False, capture_output=True, text=True)
    if done.returncode and "unknown field" in done.stderr:
        pytest.skip("this kubectl's kustomize is too old (5 is needed)")
    assert done.returncode == 0, done.stderr
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}


def written() -> dict[str, dict[str, Any]]:
    """The objects of the base as they stand in the files."""
    files = [path for path in (FOLDER / "base").glob("*.yaml") if path.name != "kustomization.yaml"]
    return {(one := yaml.safe_load(path.read_text(encoding="utf-8")))["kind"]: one for path in files}


BASE = written()
POD: dict[str, Any] = BASE["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENV = {one["name"]: one["value"] for one in CONTAINER["env"]}


@pytest.mark.parametrize("kind", sorted(BASE))
def test_each_object_is_valid_as_it_is_written(kind: str) -> None:
    kubernetes_validate.validate(BASE[kind], VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_renders_is_valid(overlay: str) -> None:
    objects = rendered(overlay)
    assert set(objects) == set(BASE)
    for one in objects.values():
        kubernetes_validate.validate(one, VERSION, strict=True)


def test_a_fault_would_be_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**BASE["Service"], "spec": {"prots": []}}, VERSION, strict=True)


def test_kustomizations_name_files_that_exist_and_leave_none_out() -> None:
    for kustomization in FOLDER.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text(encoding="utf-8"))
        named = [*content["resources"], *(one["path"] for one in content.get("patches", ()))]
        assert all((kustomization.parent / one).exists() for one in named)
        files = {path.name for path in kustomization.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {one for one in named if one.endswith(".yaml")}


def test_selectors_choose_the_pods_and_nothing_else() -> None:
    for overlay in OVERLAYS:
        objects = rendered(overlay)
        labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert objects["Service"]["spec"]["selector"].items() <= labels.items()
        assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
        policy = objects["NetworkPolicy"]["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert policy["egress"][1]["to"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "valkey"}


def test_the_gpu_overlay_asks_for_a_gpu_and_keeps_the_rest() -> None:
    base, gpu = (rendered(overlay)["Deployment"]["spec"]["template"]["spec"] for overlay in OVERLAYS)
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].startswith("gpt4rec-gpu:")
    names = {one["name"] for one in container["env"]}
    assert names == {one["name"] for one in base["containers"][0]["env"]} | {"GPT4REC_DEVICE"}
    assert container["readinessProbe"] == base["containers"][0]["readinessProbe"]


def test_settings_are_the_services_own_and_secrets_are_files() -> None:
    assert ENV.keys() <= set(variable_names())
    mounted = {one["mountPath"] for one in CONTAINER["volumeMounts"]}
    for name, value in ENV.items():
        if any(word in name for word in ("TOKEN", "KEY", "REDIS_URL")):
            assert name.endswith("_FILE")
            assert str(Path(value).parent) in mounted
    assert POD["enableServiceLinks"] is False


def test_the_grace_period_covers_the_delay_and_the_drain() -> None:
    delay, drain = float(ENV["GPT4REC_SHUTDOWN_DELAY_S"]), float(ENV["GPT4REC_DRAIN_TIMEOUT_S"])
    assert POD["terminationGracePeriodSeconds"] > delay + drain
    probe = CONTAINER["readinessProbe"]
    assert delay >= probe["periodSeconds"] * probe["failureThreshold"]


def test_probes_ask_what_they_should() -> None:
    paths = {kind: CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}


def test_the_pod_has_no_rights_it_does_not_need() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    data = Settings.model_fields["data_dir"].default
    assert any(one["mountPath"] == "/var/lib/gpt4rec" for one in CONTAINER["volumeMounts"]), data


@pytest.mark.parametrize("file", [FOLDER / "base" / "autoscaler.yaml", FOLDER / "overlays" / "gpu" / "autoscaler.yaml"])
def test_the_autoscaler_goes_by_a_gauge_of_the_service(file: Path) -> None:
    gauges = {one.name for one in Metrics().registry.collect() if one.type == "gauge"}
    metrics = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["metrics"]
    assert metrics[0]["pods"]["metric"]["name"] in gauges


def test_no_object_pins_a_namespace_or_holds_a_secret() -> None:
    for path in FOLDER.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?m)^  namespace:|^kind: Secret$|^kind: Namespace$", text), path


def test_the_monitor_asks_the_port_that_the_service_has() -> None:
    monitor = yaml.safe_load(
        (FOLDER / "components" / "monitoring" / "service-monitor.yaml").read_text(encoding="utf-8")
    )
    assert monitor["kind"] == _FOREIGN
    ports = {port["name"] for port in BASE["Service"]["spec"]["ports"]}
    assert {one["port"] for one in monitor["spec"]["endpoints"]} <= ports


def test_an_overlay_can_take_the_monitoring_component(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = copy / "overlays" / "own"
    overlay.mkdir()
    text = "resources: [../../base]\ncomponents: [../../components/monitoring]\n"
    (overlay / "kustomization.yaml").write_text(text, encoding="utf-8")
    assert set(rendered(str(overlay))) == {*BASE, _FOREIGN}
