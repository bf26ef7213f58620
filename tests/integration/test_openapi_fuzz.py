"""The OpenAPI document against the running service: schemathesis sends what it says, and what it does not say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.artifacts import write_artifact
from tests.processes import PATIENT, items_of, post, recommend, serve

# Two of its checks ask for what is not meant. A key in either header is enough, so a bad X-API-Key beside a good
# bearer token is no intrusion (ignored_auth); and a segment, a filter field or a time that no schema can know of may
# be refused (positive_data_acceptance).
NOT_MEANT = "ignored_auth,positive_data_acceptance"


def test_no_server_error_and_no_undocumented_answer(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "artifacts")
    items = items_of(artifact)
    keys = {"GPT4REC_API_KEYS": "shop:key-secret:users", "GPT4REC_OPS_TOKENS": "alice:ops-secret"}
    with serve(tmp_path, "--artifact", str(artifact), "--redis", "embedded", **{**PATIENT, **keys}) as service:
        service.client.headers["Authorization"] = "Bearer ops-secret"
        assert post(service, "u1", *items[:6]).status_code == 200
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{service.client.base_url}/openapi.json",
                "--header", "Authorization: Bearer ops-secret", "--exclude-checks", NOT_MEANT,
                "--phases", "coverage,fuzzing,stateful", "--max-examples", "8", "--seed", "1",
                "--generation-deterministic",
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        paths = service.client.get("/openapi.json").json()["paths"]
        assert f"Tested: {sum(map(len, paths.values()))}\n" in done.stdout
        metrics = service.client.get("/metrics").text
        assert not re.search(r'gpt4rec_request_duration_seconds_count\{[^}]*status="5', metrics)
        assert len(recommend(service, events=[{"item_id": items[0]}])["items"]) == 10
        log = service.log
    assert "secret" not in log
    assert "Traceback" not in log
