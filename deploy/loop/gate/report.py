"""The report of the gate: Markdown for people, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.loop.gate.limits import Figures, Limits
from deploy.loop.gate.measures import Pair
from service.common.markdown import markdown_table

_HEAD = ("measure", "candidate", "champion", "difference, 95 % interval", "limit")


@dataclass(frozen=True)
class Report:
    """What the gate found.

    Attributes:
        candidate: Version of the new model.
        champion: Version of the model in service.
        held_out: What was held out, in words.
        found: The figures.
        limits: What the candidate may lose.
        faults: Why it is refused; empty if it is not.
        notes: What a reader should know.
    """

    candidate: str
    champion: str
    held_out: str
    found: Figures
    limits: Limits
    faults: Sequence[str]
    notes: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether the candidate may replace the champion."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Returns the report; figures that nobody was asked for are null."""
        found = self.found
        figures = {
            "questions": found.questions,
            "quality": {name: pair.to_json() for name, pair in found.quality.items()},
            "calibration": {
                "candidate": asdict(found.calibration[0]), "champion": asdict(found.calibration[1]),
            },
            "latency_ms": found.latency.to_json(),
            "megabytes": {"candidate": found.size[0], "champion": found.size[1]},
            "overlap@10": found.overlap,
            "cold_start": found.cold.to_json(),
        }  # fmt: skip
        said = {
            "candidate": self.candidate, "champion": self.champion, "held_out": self.held_out, "passed": self.passed,
            "faults": list(self.faults), "notes": list(self.notes), "limits": self.limits.to_json(), **figures,
        }  # fmt: skip
        clean: dict[str, Any] = _without_nan(said)
        return clean

    def markdown(self) -> str:
        """Returns the report as a page."""
        verdict = "**passed**" if self.passed else "**refused**"
        lines = [f"# Gate: {self.candidate} against {self.champion}", "", f"The candidate is {verdict}.", ""]
        lines += [f"- {fault}" for fault in self.faults]
        lines += [""] if self.faults else []
        lines += [f"{self.found.questions:,} questions: {self.held_out}.", ""]
        lines += [markdown_table(_HEAD, self._rows()), *(f"Note: {note}." for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        found, limits = self.found, self.limits
        lost = f"−{limits.quality:.0%}" + (" for sure" if limits.sure else " beyond chance")
        rows = [_pair(name, pair, lost) for name, pair in found.quality.items()]
        ours, theirs = found.calibration
        rows += [
            ("calibration error", _number(ours.error, 3), _number(theirs.error, 3), "", f"+{limits.calibration:g}"),
            ("slope of the scores (1: calibrated)", _number(ours.slope, 2), _number(theirs.slope, 2), "", "–"),
        ]
        latency, size, cold = found.latency, found.size, found.cold
        interval = f"{latency.interval.difference:+.2f} ({latency.interval.low:+.2f} … {latency.interval.high:+.2f})"
        rows += [
            ("a list, ms (median)", f"{latency.candidate[0]:.2f}", f"{latency.champion[0]:.2f}", interval,
             f"× {limits.latency:g} beyond chance"),
            ("a list, ms (95th percentile)", f"{latency.candidate[1]:.2f}", f"{latency.champion[1]:.2f}", "", "–"),
            ("artefact, MB", f"{size[0]:.1f}", f"{size[1]:.1f}", "", f"× {limits.size:g}"),
            ("of the champion's first ten", f"{found.overlap:.0%}", "", "", f"≥ {limits.overlap:.0%}"),
            _pair("recall@10 of new users", cold.new_users, lost),
            ("new items listed", f"{cold.listed:,} of {cold.new_items:,}", "", "", "one, if any was taken"),
            ("new items that were taken, and listed", f"{cold.found:,} of {cold.asked:,}", "", "", "–"),
        ]  # fmt: skip
        return rows


def _pair(name: str, pair: Pair, limit: str) -> tuple[str, str, str, str, str]:
    said = "nobody was asked"
    if pair.interval is not None:
        said = f"{pair.interval.difference:+.4f} ({pair.interval.low:+.4f} … {pair.interval.high:+.4f})"
    return name, _number(pair.candidate, 4), _number(pair.champion, 4), said, limit


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
