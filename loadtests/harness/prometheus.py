"""A real Prometheus that scrapes services: Debian's binary, on its own port and in its own folder.

with prometheus([service.url], rules=scaled(text, 120.0)) as server:
    server.query('sum(rate(gpt4rec_recommendations_total[5s]))')    [({labels}, value), …]
    server.firing()                                                {alert name: [labels, …]}
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from loadtests.harness.served_process import free_port, listening

JOB = "gpt4rec"
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_COUNTED = re.compile(r"((?:increase\w+|increase\(.*\)\)) >= )(\d+)")
_BRACKETED = re.compile(r"\[(\d+)(ms|s|m|h|d)\]")


class Prometheus:
    """A running Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=10.0, trust_env=False)

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Returns the samples of an instant query, now.

        Raises:
            ValueError: If Prometheus rejects the expression.
        """
        answer = self._client.get("/api/v1/query", params={"query": expr}).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {expr}")
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Returns the labels of the firing alerts, by name."""
        found: dict[str, list[dict[str, str]]] = {}
        for one in self._client.get("/api/v1/alerts").json()["data"]["alerts"]:
            if one["state"] == "firing":
                found.setdefault(one["labels"]["alertname"], []).append(one["labels"])
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Returns the scraped targets and their health."""
        found: list[dict[str, Any]] = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return found

    def close(self) -> None:
        """Closes the client."""
        self._client.close()


def installed() -> bool:
    """Returns whether Prometheus is installed."""
    return shutil.which("prometheus") is not None


def scaled(text: str, times: float) -> str:
    """Returns rules with windows and durations `times` times shorter, and minimum counts `times` times smaller.

    Names and shares stay.
    """
    rules = yaml.safe_load(text)
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        expr = _COUNTED.sub(lambda found: f"{found[1]}{max(1.0, int(found[2]) / times):g}", rule["expr"])
        rule["expr"] = _BRACKETED.sub(lambda found: f"[{_shorter(found[1], found[2], times)}]", expr)
        for name in ("for", "keep_firing_for"):
            if name in rule:
                number, unit = re.fullmatch(r"(\d+)(\w+)", rule[name]).groups()  # type: ignore[union-attr]
                rule[name] = _shorter(number, unit, times)
    found: str = yaml.safe_dump(rules, sort_keys=False)
    return found


@contextmanager
def prometheus(
    urls: Sequence[str],
    *,
    rules: str | None = None,
    interval_s: float = 0.5,
    token: str | None = None,
    alerting: Mapping[str, Any] | None = None,
) -> Iterator[Prometheus]:
    """Runs Prometheus until the body ends.

    Args:
        urls: The services that it scrapes.
        rules: Its rules.
        interval_s: Seconds between scrapes, and between evaluations.
        token: Presented to the services.
        alerting: Where alerts are sent, as in a file of Prometheus.

    Raises:
        NotReadyError: If it does not start, for instance because of bad rules.
        FileNotFoundError: If it is not installed.
    """
    if not installed():
        raise FileNotFoundError("prometheus is not installed (Debian: prometheus)")
    with tempfile.TemporaryDirectory(prefix="gpt4rec-prometheus-") as folder:
        config = Path(folder) / "prometheus.yml"
        if rules is not None:
            (config.parent / "rules.yml").write_text(rules, encoding="utf-8")
        written = {**_config(urls, rules is not None, interval_s, token), "alerting": dict(alerting or {})}
        config.write_text(yaml.safe_dump(written), encoding="utf-8")
        port = free_port()
        command = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--log.level=warn",
            f"--web.listen-address=127.0.0.1:{port}", "--query.lookback-delta=15s",
        ]  # fmt: skip
        with listening(command, port, "/-/ready", Path(folder) / "log", {}) as (_, url, _ready_s):
            server = Prometheus(url)
            try:
                yield server
            finally:
                server.close()


def _config(urls: Sequence[str], rules: bool, interval_s: float, token: str | None) -> dict[str, Any]:
    every = f"{round(interval_s * 1000)}ms"
    job: dict[str, Any] = {
        "job_name": JOB,
        "static_configs": [{"targets": [urlsplit(url).netloc for url in urls]}],
    }
    if token is not None:
        job["authorization"] = {"credentials": token}
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules.yml"] if rules else [],
        "scrape_configs": [job],
    }


def _shorter(number: str, unit: str, times: float) -> str:
    return f"{max(1, round(int(number) * _UNITS_MS[unit] / times))}ms"
