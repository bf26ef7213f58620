"""The OpenAPI document against the running service: schemathesis sends what it says, and what it does not say.

`make fuzz` sends ten thousand.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import fuzz
from tests.support.processes import items_of, post, recommend, serve


def test_no_server_error_and_no_undocumented_answer(random_artifact: Path, tmp_path: Path) -> None:
    items = items_of(random_artifact)
    with serve(tmp_path, "--artifact", str(random_artifact), "--redis", "embedded", **fuzz.SETTINGS) as service:
        service.client.headers["Authorization"] = f"Bearer {fuzz.TOKEN}"
        assert post(service, "u1", *items[:6]).status_code == 200
        found = fuzz.run(service, tmp_path, examples=3, seed=1)
        assert not found.failed, found.said
        paths = service.client.get("/openapi.json").json()["paths"]
        assert found.operations == sum(map(len, paths.values()))
        assert found.cases > 300
        assert fuzz.faults(service) == []
        assert len(recommend(service, events=[{"item_id": items[0]}])["items"]) == 10
