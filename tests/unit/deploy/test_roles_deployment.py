"""The alerts of the roles name what exists."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry

from service.metrics.encode_metrics import ENTRIES, HANDED, EncodeMetrics
from tests.support.deployment import alerts


def test_alerts_name_metrics_that_exist_and_entries_of_the_runbook() -> None:
    registry = CollectorRegistry()
    EncodeMetrics(registry)
    for rule in alerts("roles.yml", tuple(registry.collect())):
        for named in re.findall(r'outcome=~?"([\w|]+)"', rule["expr"]):
            assert set(named.split("|")) <= {*HANDED, *ENTRIES}
