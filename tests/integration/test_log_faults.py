"""The reader of the service's log stalls, and goes away; a file that the service follows hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from loadtests.harness.hung_file import hang, held
from service.settings.service_settings import DEFAULT_POLICIES
from tests.support.processes import PATIENT, Serve, items_of, kept, post, recommend
from tests.support.valkey import Valkey


def fill(pipe: int) -> None:
    """Leaves no room in a pipe, and makes its writers wait."""
    os.set_blocking(pipe, False)
    for size in (1 << 16, 1):
        try:
            while True:
                os.write(pipe, b"." * size)
        except BlockingIOError:
            pass
    os.set_blocking(pipe, True)


def test_a_log_reader_that_stalls_or_is_gone_and_a_file_that_hangs_hold_nothing_up(
    random_artifact: Path, tmp_path: Path, valkey: Valkey
) -> None:
    items = items_of(random_artifact)
    read, write = os.pipe()
    fill(write)

    class Muted(Serve):
        output = write

    policies = tmp_path / "policies.yaml"
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    where = ("--artifact", str(random_artifact), "--redis", valkey.url, "--policies", str(policies))
    with kept(Muted(tmp_path, *where, **PATIENT)) as service:
        os.close(write)
        assert post(service, "u1", *items[:3]).status_code == 200
        for _ in range(20):
            assert recommend(service, user_id="u1")["rung"] == "full"
        os.close(read)
        for _ in range(20):
            assert recommend(service, user_id="u1")["rung"] == "full"
        found = service.client.get("/metrics").text
        assert "gpt4rec_log_lines_dropped_total 0.0" not in found
        assert "gpt4rec_log_lines_dropped_total" in found
        hang(policies)
        with held(policies):
            assert service.stop(signal.SIGHUP) == 0
