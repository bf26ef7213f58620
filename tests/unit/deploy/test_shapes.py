"""The shapes of a deployment (one box, three replicas with Sentinel, a cluster with roles): rendered and valid."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from service.settings.service_settings import variable_names

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS, CHART = ROOT / "deploy" / "kubernetes", ROOT / "deploy" / "helm" / "gpt4rec"
VERSION = "1.32"
SHAPES = ("one-box", "sentinel", "cluster-roles")
COMPOSE = {
    "one-box": ROOT / "docker-compose.yml",
    **{shape: ROOT / "deploy" / "compose" / f"{shape}.yml" for shape in SHAPES[1:]},
}
# Where the helm that `make helm` fetches lies.
HELM = shutil.which("helm") or shutil.which("helm", path=str(ROOT / ".helm"))
_APP = re.compile(r"gpt4rec(-encode)?$")


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode and "unknown field" in done.stderr:
        pytest.skip("this kubectl's kustomize is too old (5 is needed)")
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomized(shape: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    return list(yaml.safe_load_all(run("kubectl", "kustomize", str(MANIFESTS / "overlays" / shape))))


def helmed(shape: str, *more: str) -> list[dict[str, Any]]:
    if HELM is None:
        pytest.skip("helm is not installed: make helm")
    text = run(HELM, "template", "gpt4rec", str(CHART), "-f", str(CHART / f"values-{shape}.yaml"), *more)
    return [one for one in yaml.safe_load_all(text) if one]


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def settings_of(deployment: dict[str, Any]) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("render", [kustomized, helmed])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_rendered_and_every_object_is_valid(render: Any, shape: str) -> None:
    objects = render(shape)
    for one in objects:
        kubernetes_validate.validate(one, VERSION, strict=True)
    identities = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("render", [kustomized, helmed])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_replicas_and_roles(render: Any, shape: str) -> None:
    objects = render(shape)
    deployments = named(objects, "Deployment")
    roles = {name: settings_of(one).get("GPT4REC_ROLE", "all") for name, one in deployments.items()}
    least = named(objects, "HorizontalPodAutoscaler")["gpt4rec"]["spec"]["minReplicas"]
    assert (roles, least) == {
        "one-box": ({"gpt4rec": "all"}, 1),
        "sentinel": ({"gpt4rec": "all"}, 3),
        "cluster-roles": ({"gpt4rec": "answer", "gpt4rec-encode": "encode"}, 3),
    }[shape]
    for one in deployments.values():
        settings = settings_of(one)
        assert settings.keys() <= set(variable_names())
        pod = one["spec"]["template"]["spec"]
        delay, drain = (float(settings[f"GPT4REC_{name}"]) for name in ("SHUTDOWN_DELAY_S", "DRAIN_TIMEOUT_S"))
        assert pod["terminationGracePeriodSeconds"] > delay + drain
        assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
    # Nobody sends lists to what encodes.
    for service in named(objects, "Service").values():
        chosen = service["spec"]["selector"]
        labels = (
            deployments.get("gpt4rec-encode", {}).get("spec", {}).get("template", {}).get("metadata", {}).get("labels")
        )
        assert labels is None or not chosen.items() <= labels.items()


@pytest.mark.parametrize("render", [kustomized, helmed])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_workload_has_the_rights_it_needs_and_a_policy_of_its_own(render: Any, shape: str) -> None:
    objects = render(shape)
    policies = [one["spec"]["podSelector"] for one in objects if one["kind"] == "NetworkPolicy"]
    workloads = [one for one in objects if one["kind"] in ("Deployment", "StatefulSet", "Job")]
    for one in workloads:
        template = one["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert any(policy.get("matchLabels", {"": ""}).items() <= labels.items() for policy in policies), one[
            "metadata"
        ]
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["capabilities"]) == (True, {"drop": ["ALL"]})
            assert re.search(r":\d", container["image"]), container["image"]
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(
    ("shape", "ports"), [("one-box", {6379}), ("sentinel", {6379, 26379}), ("cluster-roles", {6379})]
)
def test_the_service_may_reach_the_servers_of_its_shape(shape: str, ports: set[int]) -> None:
    objects = kustomized(shape)
    servers = {one["metadata"]["labels"]["app.kubernetes.io/name"] for one in named(objects, "StatefulSet").values()}
    for deployment in named(objects, "Deployment").values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        app = labels["app.kubernetes.io/name"]
        assert _APP.match(app)
        allowed: set[tuple[str, int]] = set()
        admitted: set[str] = set()
        for policy in named(objects, "NetworkPolicy").values():
            selector = policy["spec"]["podSelector"]
            own = selector.get("matchLabels", {}).get("app.kubernetes.io/name") == app or any(
                app in one["values"] for one in selector.get("matchExpressions", ())
            )
            if own:
                allowed |= {
                    (to["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
                    for rule in policy["spec"]["egress"]
                    for to in rule["to"]
                    if "app.kubernetes.io/name" in to.get("podSelector", {}).get("matchLabels", {})
                    for port in rule["ports"]
                }
            target = selector.get("matchLabels", {}).get("app.kubernetes.io/name")
            callers = [one for rule in policy["spec"].get("ingress", ()) for one in rule["from"]]
            names = {one.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name") for one in callers}
            if target in servers and app in names:
                admitted.add(target)
        assert {name for name, _ in allowed} == servers
        assert {port for _, port in allowed} == ports
        assert admitted == servers


def test_the_chart_refuses_a_role_that_does_not_exist() -> None:
    if HELM is None:
        pytest.skip("helm is not installed: make helm")
    given = ("--set", "roles.answr.replicas.min=1")
    command = [HELM, "template", "gpt4rec", str(CHART), *given]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "roles.answr: a role is all, answer or encode" in done.stderr


def test_settings_of_the_chart_reach_the_service() -> None:
    objects = helmed("sentinel", "--set", "settings.deadline_ms=120", "--set", "image.tag=1.2.3")
    deployment = named(objects, "Deployment")["gpt4rec"]
    assert settings_of(deployment)["GPT4REC_DEADLINE_MS"] == "120"
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "gpt4rec:1.2.3"


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_files_are_valid_and_what_they_name_exists(shape: str) -> None:
    content = yaml.safe_load(COMPOSE[shape].read_text(encoding="utf-8"))
    plain = {key: one for key, one in content.items() if not key.startswith("x-")}
    names = set(PyCompose.from_yaml(yaml.safe_dump(plain)).service_names())
    for name, service in content["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert set(service.get("depends_on", {})) <= names
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./") and not source.startswith(("./artifacts", "./first", "./secrets/")):
                assert (ROOT / source).exists(), source
            elif not source.startswith("./"):
                assert source in content["volumes"], source
        environment = service.get("environment", {})
        own = {key for key in environment if key.startswith("GPT4REC_") and "LOOP" not in key and "SINK" not in key}
        assert own <= set(variable_names())
        command = service.get("command", [""])
        if command[0].startswith("/scripts/"):
            folder = next(mount.split(":")[0] for mount in service["volumes"] if ":/scripts" in mount)
            assert (ROOT / folder / Path(command[0]).name).exists()
