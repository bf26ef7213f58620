"""A process that cannot end by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

from loadtests.harness.hung_file import hang

SCRIPT = """
import sys, threading
from service.common import logs
from service.process import output
from service.process.process_end import end_within
output.take_over(logs.dropped_notice)
logs.configure()
threading.Thread(target=open, args=(sys.argv[1],), name="reader").start()  # the end of the process waits for it
end_within(0.2)
"""


ASKED = """
import asyncio, os, signal
from service.process.process_end import stop_signals
async def main():
    signals = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    for asked in signals:
        stop = stop_signals(60.0)
        os.kill(os.getpid(), asked)
        await stop.wait()
        for one in signals:
            asyncio.get_running_loop().remove_signal_handler(one)
asyncio.run(main())
"""


def test_a_signal_to_stop_is_an_event_of_the_loop() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_waits_for_a_file_that_hangs_ends_and_says_where_it_waited(tmp_path: Path) -> None:
    path = tmp_path / "file"
    hang(path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    told = orjson.loads(line)
    assert told["event"] == "stop_overdue"
    assert any(name.startswith("reader") for name in told["threads"])
