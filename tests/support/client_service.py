"""A service for the tests of clients in other languages: `python -m tests.support.client_service -- COMMAND`.

It starts a Valkey and a service with a tiny artefact, runs the command with `GPT4REC_URL` and the keys in its
environment, and exits as the command did.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.artifacts import write_artifact
from tests.support.processes import PATIENT, Serve, serve
from tests.support.valkey import Valkey

OPERATOR_KEY, PAGE_KEY, RATED_KEY = "tok", "page-key", "rated-key"
# Operators have no rate; RATED_KEY is spent by the test of rates alone.
SETTINGS = {
    **PATIENT,
    "GPT4REC_API_KEYS": f"page:{PAGE_KEY},rated:{RATED_KEY}",
    "GPT4REC_API_RATE": "5/hour",
}


@contextmanager
def client_service(artifact: Path, folder: Path, **settings: str) -> Iterator[Serve]:
    """A service that wants keys, and limits their rate."""
    store = Valkey(folder / "valkey")
    store.start()
    try:
        with serve(folder, "--artifact", str(artifact), "--redis", store.url, **SETTINGS, **settings) as running:
            yield running
    finally:
        store.stop()


def main(command: Sequence[str]) -> int:
    """Runs a command beside a service, and returns its status."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_artifact(Path(folder) / "artifacts")
        with client_service(artifact, Path(folder)) as running:
            keys = {"OPERATOR": OPERATOR_KEY, "PAGE": PAGE_KEY, "RATED": RATED_KEY}
            environment = {f"GPT4REC_{name}_KEY": key for name, key in keys.items()}
            url = f"http://127.0.0.1:{running.port}"
            return subprocess.run(
                command, env={**os.environ, **environment, "GPT4REC_URL": url}, check=False
            ).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[sys.argv.index("--") + 1 :]))
