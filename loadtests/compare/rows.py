"""Rows and criteria of the comparison, from its measurements. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from loadtests.common import limit_criteria
from loadtests.common.results import Row, row
from loadtests.peers.closed_loop import ClosedLoop
from loadtests.peers.systems import BATCHED_BEAM, DECODE_ONLY, ENCODE_DECODE, ONE_BY_ONE, OURS, System

LIMIT_MS = 50.0
OPEN_LOOP = f"highest rate of an open loop (Poisson) with p99 ≤ {LIMIT_MS:g} ms and no errors"
# One process that takes several of the limit's milliseconds a request bears less than this in an open loop.
SEQUENTIAL = "one request at a time, 1 / mean latency: more than an open loop would bear within the limit"
UNCONFIRMED = "in one round at least the search ran out of time before a longer run had confirmed the rate"


@dataclass(frozen=True, slots=True)
class Measured:
    """One system in one round. Rates are requests a second, CPU is cores in use at that rate."""

    key: str
    method: str
    rps: float
    p50_ms: float
    p99_ms: float
    server_cpu: float
    generator_cpu: float
    checked: int
    generator_bound: bool = False
    confirmed: bool = True
    wrk: ClosedLoop | None = None


Round = Mapping[str, Measured]


def system_row(
    system: System, settings: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], rounds: Sequence[Round]
) -> dict[str, Any] | None:
    """Returns the row of a system: medians over the rounds; None if it was not measured."""
    measured = [one[system.key] for one in rounds if system.key in one]
    if not measured:
        return None
    checks = {"same items": "the items of the exported graphs", "valid items": "k different items of the catalogue"}
    wrk = [one.wrk for one in measured if one.wrk is not None]
    methods = {one.method for one in measured}
    return {
        "name": system.name,
        "variant": system.variant,
        "rps": round(median(one.rps for one in measured), 2),
        "p50_ms": round(median(one.p50_ms for one in measured), 3),
        "p99_ms": round(median(one.p99_ms for one in measured), 3),
        "server_cpu": round(median(one.server_cpu for one in measured), 3),
        "generator_cpu": round(median(one.generator_cpu for one in measured), 3),
        "cpu_ms_a_request": round(median(1000.0 * one.server_cpu / one.rps for one in measured), 3),
        "checked": f"{measured[0].checked} lists: {checks[system.check]}",
        "cannot": list(system.cannot),
        "settings": {"chosen": dict(settings), "tried": [dict(one) for one in tried]},
        "notes": [*system.notes, *([] if all(one.confirmed for one in measured) else [UNCONFIRMED])],
        "method": " / ".join(sorted(methods)),
        "generator_bound": any(one.generator_bound for one in measured),
        "rps_by_round": [round(one.rps, 2) for one in measured],
        "wrk": {
            "rps": round(median(one.rps for one in wrk), 2),
            "p99_ms": round(median(one.p99_ms for one in wrk), 3),
            "concurrency": wrk[0].concurrency,
            "bad": next((one.bad for one in wrk if one.bad), None),
        }
        if wrk
        else None,
    }


def round_json(one: Round) -> dict[str, Any]:
    """Returns a round as it is recorded beside the medians."""
    return {key: asdict(measured) for key, measured in one.items()}


def best(one: Round, names: Sequence[str], variant: str | None = None) -> float | None:
    """Returns the highest rate of a round among systems of these names; None if one of the names is missing."""
    rates: dict[str, float] = {}
    for key, measured in one.items():
        name, _, found = key.partition(", ")
        if name in names and (variant is None or found.startswith(variant)):
            rates[name] = max(measured.rps, rates.get(name, 0.0))
    return max(rates.values()) if len(rates) == len(names) else None


def ratio(rounds: Sequence[Round], names: Sequence[str], variant: str | None = None) -> float | None:
    """Returns the median over the rounds of our rate ÷ the best of `names`; None if no round has both."""
    pairs = [(best(one, (OURS,)), best(one, names, variant)) for one in rounds]
    ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
    return median(ratios) if ratios else None


# criterion of fewer steps, systems, variant
_LIMITS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (limit_criteria.PEERS_SERVERS, ("litserve", "bentoml"), ENCODE_DECODE),
    (limit_criteria.PEERS_FASTAPI, ("fastapi",), ENCODE_DECODE),
    (limit_criteria.PEERS_TORCH, ("torch eager",), BATCHED_BEAM),
    *((name, (system,), DECODE_ONLY) for system, name in limit_criteria.PEERS_DECODE_ONLY.items()),
)
# criterion, systems, variant, least ratio
_CRITERIA: tuple[tuple[str, tuple[str, ...], str | None, float | None], ...] = (
    ("2 rps / best of LitServe and BentoML", ("litserve", "bentoml"), ENCODE_DECODE, 3.0),
    ("2 rps / FastAPI + thread", ("fastapi",), ENCODE_DECODE, 2.0),
    # Both ways a beam search is written in a notebook; the second is the better one.
    ("2 rps / torch eager, hypothesis by hypothesis", ("torch eager",), ONE_BY_ONE, 50.0),
    ("2 rps / torch eager, batched over the beam", ("torch eager",), BATCHED_BEAM, 50.0),
    ("2 rps / HF generate", ("HF generate",), None, 50.0),
    ("2 rps / LitServe, decode only", ("litserve",), DECODE_ONLY, None),
    ("2 rps / BentoML, decode only", ("bentoml",), DECODE_ONLY, None),
    ("2 rps / FastAPI + thread, decode only", ("fastapi",), DECODE_ONLY, None),
)


def criteria(rounds: Sequence[Round], command: str, width: int) -> list[Row]:
    """Returns the rows of criterion 2 and of the limits beside peers.

    Args:
        rounds: What was measured; for `generate` its faster variant counts.
        command: The command as the documents show it.
        width: Nodes that a run keeps at every level. At the width of before, only the second reading is recorded.
    """
    found = [(name, ratio(rounds, systems, variant)) for name, systems, variant in _LIMITS]
    measured = [(name, value) for name, value in found if value is not None]
    if width == limit_criteria.WIDE:
        wide = limit_criteria.PEERS_WIDE
        return [limit_criteria.row(wide[name], value, command) for name, value in measured if name in wide]
    rows = [limit_criteria.row(name, value, command) for name, value in measured]
    for name, systems, variant, least in _CRITERIA:
        value = ratio(rounds, systems, variant)
        if value is not None:
            rows.append(row(name, value, "ratio", command, at_least=least))
    ours = [rate for one in rounds if (rate := best(one, (OURS,)))]
    if ours:
        rows.append(row("2 rps at p99 ≤ 50 ms", median(ours), "requests/s", command))
    return rows
