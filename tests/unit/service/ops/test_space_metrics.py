"""The metrics of several spaces as one text: each family once, and a label for what each space has of its own."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from service.metrics.service_metrics import Metrics
from service.ops.space_metrics import beside, rendered
from service.ops.worker_peers import merge


def samples(text: str, name: str) -> dict[str | None, float]:
    """Value by the label `space`, None for a sample without one."""
    return {
        sample.labels.get("space"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.get("outcome") in (None, "accepted")
    }


def shown() -> str:
    process = Metrics()
    shoes = beside(process)
    process.events.labels("accepted").inc(2)
    shoes.events.labels("accepted").inc(3)
    process.loop_lag.set(0.5)
    shoes.log_lines_dropped.inc(4)  # of the process, whoever counts it
    text = asyncio.run(rendered(process, {"default": process, "shoes": shoes})).decode()
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)), "a family is there twice, which scrapers refuse"
    return text


def test_what_each_space_counts_has_its_label_and_what_the_process_counts_has_none() -> None:
    text = shown()
    assert samples(text, "gpt4rec_events_total") == {"default": 2.0, "shoes": 3.0}
    assert samples(text, "gpt4rec_event_loop_lag_seconds") == {None: 0.5}
    assert samples(text, "gpt4rec_log_lines_dropped_total") == {None: 4.0}


def test_workers_are_summed_by_space() -> None:
    text = merge([shown(), shown()]).decode()
    assert samples(text, "gpt4rec_events_total") == {"default": 4.0, "shoes": 6.0}
    assert samples(text, "gpt4rec_event_loop_lag_seconds") == {None: 0.5}


def test_metrics_of_one_space_name_no_other() -> None:
    process = Metrics()
    text = asyncio.run(rendered(process, {"shoes": beside(process)})).decode()
    assert 'space="shoes"' in text
    assert "default" not in text
