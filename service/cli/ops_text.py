"""The answers of the /ops routes as sentences and tables for a terminal. Pure.

Reasons, names and titles come from elsewhere: every line is made printable (`service.common.printable`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.common.printable import printable

_FIGURES = ("recall@10", "ndcg@10")
_QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
# Fields of the answer that are not part of the policies.
POLICIES_ANSWER_FIELDS = ("request_id", "origin", "actor", "reason", "changed_at", "version", "shared")


def fallback_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns an answer of /ops/fallback: the mode, the breaker, the attempts, and how fast the budgets burn."""
    budgets = answer["budgets"]
    attempts = budgets["attempts"]
    typical = f"; one typically takes {attempts['typical_ms']:g} ms" if attempts["typical_ms"] is not None else ""
    cause = f" because of {budgets['cause']}" if budgets["cause"] else ""
    return [
        f"The mode is {answer['mode']}{_by(answer)}.",
        f"It is change {answer['version']}. It is "
        + ("shared with every replica." if answer["shared"] else "not shared: it holds on this replica only."),
        *([f"It ends at {printable(str(answer['expires_at']))}."] if answer["expires_at"] else []),
        f"The breaker is {answer['breaker'].replace('_', ' ')}: the model gets {budgets['model_share']:.0%} of the "
        f"traffic{cause}.",
        f"Of {attempts['total']} model attempts in the last {attempts['window_s']:g} s, "
        f"{attempts['late_or_failed']} were late or failed ({attempts['limit']:.0%} open the breaker){typical}.",
        "",
        *burn_table(budgets["burn_rate"]),
    ]


def burn_table(rates: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns how many times faster than allowed each error budget burns, by window."""
    windows = list(next(iter(rates.values()), {}))
    rows = [[objective, *(f"{by_window[window]:.2f}" for window in windows)] for objective, by_window in rates.items()]
    return table(["budget burns", *windows], rows)


def policies_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns the policies in force as YAML, below a comment that says where they come from."""
    import yaml

    body = {name: value for name, value in answer.items() if name not in POLICIES_ANSWER_FIELDS}
    source = "the policies file" if answer["origin"] == "file" else f"an operator{_by(answer)}"
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
    return [f"# From {source}.", *(printable(line) for line in text.splitlines())]


def models_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns the versions, which of them is served, where a rollback leads, and what each replica serves."""
    rows = []
    for model in answer["models"]:
        figures = "  ".join(f"{name} {model['metrics'][name]:.4f}" for name in _FIGURES if name in model["metrics"])
        created = model["created_at"] or "–"
        rows.append([f"{'*' if model['active'] else ' '} {model['version']}", created, model["fault"] or figures])
    previous = answer["previous"]
    lines = [
        *table(["  version", "created", "figures, or why it cannot be served"], rows),
        "",
        "* is served here. "
        + printable(
            f"A rollback activates {previous}." if previous else "There is no previous version to roll back to."
        ),
    ]
    for replica in answer["replicas"] or ():
        fault = f": {replica['fault']}" if replica["fault"] else ""
        lines.append(printable(f"The replica {replica['name']} serves {replica['active']}{fault}."))
    return lines


def audit_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the entries of the audit as a table of time, operator and what was done."""
    if not entries:
        return ["Nobody has changed anything yet."]
    rows = [[entry["at"], entry["actor"], entry["text"]] for entry in entries]
    return table(["time", "operator", "change"], rows)


def status_lines(snapshot: Mapping[str, Any]) -> list[str]:
    """Returns a snapshot of /ops/status as lines for a terminal, the most urgent first."""
    mode, breaker, service = snapshot["mode"], snapshot["breaker"], snapshot["service"]
    traffic, queue = snapshot["traffic"], snapshot["queue"]
    by = f" by {mode['actor']}: {mode['reason']}" if mode["actor"] else ""
    ends = f", {mode['expires_in_s']:.0f} s left" if mode["expires_in_s"] is not None else ""
    cause = f", {breaker['cause']}" if breaker["cause"] else ""
    rows = {
        "mode": f"{mode['mode']}{by}{ends}{'' if mode['shared'] else ' (not shared)'}",
        "breaker": f"{breaker['state']}, the model gets {breaker['model_share']:.0%}{cause}",
        "redis": "works" if snapshot["redis"] else f"unusable: {snapshot.get('redis_meaning') or 'unknown'}",
        **({"files": f"hang: {', '.join(hung)}"} if (hung := snapshot.get("files_hang")) else {}),
        "model": f"{service['model_version']}{'' if service['engine'] else ' (engine stuck)'}",
        "workers": f"{service['workers_answering']} of {service['workers']} answer",
        "traffic": f"{traffic['answers_per_s']:g} answers/s over {traffic['window_s']} s, {traffic['late']} late, "
        f"{traffic['failed']} failed",
    }
    for source, figures in traffic["latency"].items():
        if figures["answers"]:
            ms = "  ".join(f"{name.removesuffix('_ms')} {figures[name]:.1f} ms" for name in _QUANTILES)
            rows[f"  {source}"] = f"{ms}  (budget {snapshot['budget_ms']:g} ms)"
    for kind in ("rung", "reason"):
        rows[kind] = ", ".join(f"{name} {count}" for name, count in traffic[kind].items()) or "–"
    for objective, rates in snapshot["burn_rate"].items():
        rows[f"burn {objective}"] = "  ".join(f"{window} {rate:g}" for window, rate in rates.items())
    hits = traffic["cache"]["hit_share"]
    waiting = f"{queue['depth']:g} waiting, {queue['inflight']:g} in progress"
    rows["queue"] = f"{waiting}, loop {queue['loop_lag_ms']:g} ms late"
    rows["cache hits"] = "–" if hits is None else f"{hits:.1%}"
    return [printable(f"{name:14} {value}") for name, value in rows.items()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table with aligned columns. Lines may be long: they are not cut, so that they can be copied.

    Args:
        head: The column titles.
        rows: The cells, as many in each row as there are titles.
    """
    cells = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _by(answer: Mapping[str, Any]) -> str:
    """Who made the last change, when and why; nothing if nobody did."""
    if not answer.get("actor"):
        return ""
    reason = f" ({answer['reason']})" if answer.get("reason") else ""
    return printable(f", set by {answer['actor']} at {answer['changed_at']}{reason}")


def preview_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns what policies would change."""
    lines = ["On recent requests:", *(printable(f"  - {sentence}") for sentence in answer["would"])]
    for one in answer["examples"]:
        segments = " → ".join(dict.fromkeys(one["segment"]))
        lines.append(printable(f"  {segments}: without {_some(one['goes'])}; with {_some(one['comes'])}"))
    return lines


def _some(titles: Sequence[str], shown: int = 3) -> str:
    more = len(titles) - shown
    return (", ".join(titles[:shown]) or "nothing") + (f" and {more} more" if more > 0 else "")
