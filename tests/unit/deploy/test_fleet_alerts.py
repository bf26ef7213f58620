"""The alerts of replicas and of spaces name what exists."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from service.guard.guard import Reason
from service.metrics.service_metrics import Metrics
from tests.support.deployment import alerts


@pytest.mark.parametrize("file", ["fleet.yml", "spaces.yml"])
def test_alerts_name_metrics_that_exist_and_entries_of_the_runbook(file: str) -> None:
    metrics = Metrics()
    for rule in alerts(file, tuple(metrics.registry.collect())):
        assert rule["labels"]["severity"] in ("page", "ticket")
        for named in re.findall(r'reason=~?"([\w|]+)"', rule["expr"]):
            assert set(named.split("|")) <= set(get_args(Reason)), rule["alert"]
        for outcome in re.findall(r'gpt4rec_model_reopenings_total{outcome="(\w+)"', rule["expr"]):
            found = metrics.registry.get_sample_value("gpt4rec_model_reopenings_total", {"outcome": outcome})
            assert found == 0.0, "it is shown from the start"
