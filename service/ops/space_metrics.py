"""The metrics of several spaces as one exposition: each family once, with the label `space`.

What a process has once, such as the lag of its event loop, has no such label. Spaces are named in a file of at most 64,
so the label is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from service.metrics.service_metrics import Metrics
from service.metrics.text_formats import PLAIN, TextFormat

# Attributes of `Metrics` that a process has once.
_ONCE = ("loop_lag", "unanswered_bytes", "bodies_refused", "log_lines_dropped", "spans", "worker_replaced")


def beside(process: Metrics) -> Metrics:
    """Returns the metrics of a further space. It shares with the process what the process has once.

    Args:
        process: The metrics of the process, which are those of the default space too.
    """
    made = Metrics()
    for name in _ONCE:
        made.registry.unregister(getattr(made, name))
        setattr(made, name, getattr(process, name))
    return made


async def rendered(process: Metrics, spaces: Mapping[str, Metrics], form: TextFormat = PLAIN) -> bytes:
    """Returns the metrics of some spaces as text. Between two spaces other requests are answered.

    Args:
        process: The metrics of the process.
        spaces: The metrics by the name of the space.
        form: The format of the text.
    """
    once = {family.name for name in _ONCE for family in getattr(process, name).collect()}
    together: dict[str, Metric] = {}
    for space, metrics in spaces.items():
        for family in _labelled(metrics, space, once):
            if family.name in together:
                together[family.name].samples += family.samples
            else:
                together[family.name] = family
        await asyncio.sleep(0)
    return await asyncio.to_thread(form.text_of, together.values())


def _labelled(metrics: Metrics, space: str, once: set[str]) -> Iterator[Metric]:
    for family in metrics.registry.collect():
        if family.name not in once:
            family.samples = [one._replace(labels={**one.labels, "space": space}) for one in family.samples]
        yield family
