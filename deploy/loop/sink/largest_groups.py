"""The largest groups of each dimension, which live outcomes show."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Gauge

from deploy.loop.sink.tallies import Key
from model.online.grouped import OTHER
from model.online.online_report import ARM, POSITION
from service.experiments.outcomes import Outcomes
from service.metrics.sink_metrics import SinkMetrics

_TOP = 20


def largest(found: Mapping[Key, Outcomes], *, all_named: bool) -> dict[Key, Outcomes]:
    """Returns the twenty largest groups of each dimension, and the others as one.

    Args:
        found: Outcomes by dimension and group; those without lists are left out.
        all_named: Leaves none of the arms and models out, by which experiments are judged.
    """
    by_dimension: dict[str, list[tuple[str, Outcomes]]] = {}
    for (dimension, group), one in found.items():
        # A day without lists of an arm may have changed the squares of its sums.
        if one.sums.lists or (dimension == ARM and one != Outcomes()):
            by_dimension.setdefault(dimension, []).append((group, one))
    kept: dict[Key, Outcomes] = {}
    for dimension, groups in by_dimension.items():
        most = len(groups) if all_named and dimension in ("model", ARM) else _TOP
        order = sorted(groups, key=_position if dimension == POSITION else _size)
        for place, (group, one) in enumerate(order):
            key = (dimension, group if place < most else OTHER)
            kept[key] = kept.get(key, Outcomes()) + one
    return kept


def show(metrics: SinkMetrics, found: Mapping[Key, Outcomes]) -> None:
    """Shows the largest groups in the metrics, in place of those that were shown before.

    Args:
        metrics: Of the sink.
        found: Outcomes by dimension and group; none to show nothing.
    """
    gauges: tuple[Gauge, ...] = (metrics.lists, metrics.click_through, metrics.conversions, metrics.value)
    for gauge in gauges:
        gauge.clear()
    for key, one in largest(found, all_named=False).items():
        figures = one.sums.lists, one.click_through, one.per_thousand(one.conversions), one.per_thousand(one.value)
        for gauge, figure in zip(gauges, figures, strict=True):
            if figure is not None:
                gauge.labels(*key).set(figure)


def _size(group: tuple[str, Outcomes]) -> tuple[bool, int, str]:
    return group[0] == OTHER, -group[1].sums.lists, group[0]


def _position(group: tuple[str, Outcomes]) -> tuple[bool, int, str]:
    return not group[0].isdigit(), int(group[0]) if group[0].isdigit() else 0, group[0]
