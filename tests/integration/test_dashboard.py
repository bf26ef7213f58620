"""The dashboard against a real Prometheus that scrapes a real service: each of its queries returns data."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from deploy.grafana import dashboard
from deploy.prometheus import rules
from loadtests.harness.prometheus import installed, prometheus, scaled
from loadtests.harness.valkey import TcpValkey
from service.guard.error_budgets import BudgetSettings
from tests.support.processes import OPS, PATIENT, Serve, items_of, post, recommend, serve

pytestmark = pytest.mark.skipif(not installed(), reason="prometheus is not installed (Debian: prometheus)")

# A day of the rules in twelve minutes: an hour's share has something to go by.
SCALE = 120.0
BOARD = json.loads((Path(dashboard.__file__).parent / "dashboards" / "gpt4rec.json").read_text(encoding="utf-8"))
# Counters of what the test does not provoke.
_SILENT = (
    "gpt4rec_model_reload", "gpt4rec_rate_checks", "gpt4rec_deprecated_uses", "gpt4rec_crowded", "gpt4rec_spans",
    "gpt4rec_model_evictions", "gpt4rec_model_reopenings", 'status=~"5..',
)  # fmt: skip
# Figures of other processes, of whole hours and of experiments. `test_dashboard_file` compares their names and labels
# with the code.
_ELSEWHERE = ("intake", "sink", "outcomes", "loop", "encode")
# The artefact of the test has no order model.
_NOT_HERE = tuple(
    f"gpt4rec_{name}" for name in (*_ELSEWHERE, "drift", "watch", "experiment", "shadow", "ordered_lists")
)
QUERIES = [
    (f"{panel['title']}: {target['legendFormat']}", target["expr"])
    for panel in BOARD["panels"]
    for target in panel.get("targets", ())
    if not any(name in target["expr"] for name in _NOT_HERE)
]


def test_every_query_of_the_dashboard_returns_data_of_a_running_service(random_artifact: Path, tmp_path: Path) -> None:
    with TcpValkey(tmp_path / "valkey") as valkey:
        where = ("--artifact", str(random_artifact), "--redis", valkey.url)
        with serve(tmp_path, *where, **PATIENT) as service:
            text = scaled(rules.text(BudgetSettings()), SCALE)
            with prometheus([f"http://127.0.0.1:{service.port}"], rules=text) as server:
                missing = dict(QUERIES)
                until = time.monotonic() + 40.0
                round_ = 0
                while missing:
                    assert time.monotonic() < until, f"no data: {missing}"
                    _use(service, items_of(random_artifact), round_)
                    round_ += 1
                    if valkey.running and all(name.startswith("Failed Redis commands") for name in missing):
                        valkey.kill9()  # what fails is shown too
                    for name, expr in list(missing.items()):
                        found = server.query(_filled(expr))
                        if any(not math.isnan(value) for _, value in found):
                            del missing[name]
                assert [target["health"] for target in server.targets()] == ["up"]


def _use(service: Serve, items: list[str], round_: int) -> None:
    user = f"u{round_ % 5}"
    post(service, user, items[round_ % len(items)], start_ms=1_700_000_000_000 + round_ * 60_000)
    recommend(service, user_id=user)
    recommend(service, user_id=user, budget_ms=0.1 + round_ % 2)
    pin = {"name": "dear", "kind": "pin", "item": items[-1], "position": 1}
    recommend(service, user_id=user, rules=[pin])
    service.client.put(f"/items/new-{round_}", headers=OPS, json={"title": "New", "like": [items[0]]})


def _filled(expr: str) -> str:
    """As Grafana would ask, with everything chosen; what stands in for silence does not count as data."""
    shown = expr.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "5s")
    shown = shown.replace("$space", ".*").replace("$segment", ".*")
    return shown if any(name in shown for name in _SILENT) else shown.replace(" or vector(0)", "")
