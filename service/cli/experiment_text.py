"""The answers of the /ops routes of experiments as sentences and tables for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.cli.ops_text import table
from service.common.printable import printable


def experiments_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns all experiments, the hold-out, and what is held for them."""
    rows = [
        [
            one["name"],
            one["state"],
            f"{one['share']:.1%} of {'the requests' if one['shadow'] else one['layer']}",
            "nobody" if one["shadow"] else f"step {one['step']} of {len(one['steps'])} ({one['portion']:.0%})",
            ", ".join(arm["name"] for arm in one["arms"]),
            one["cause"] or "",
        ]
        for one in answer["experiments"]
    ]
    lines = table(["experiment", "state", "subjects", "let in", "arms", "cause"], rows) if rows else ["No experiments."]
    if (holdout := answer["holdout"]) is not None:
        lines += [
            "",
            printable(f"{holdout['share']:.1%} of all subjects are held out: {holdout['model']} answers them."),
        ]
    memory = answer["memory"]
    held = ", ".join(f"{version} ({mib:g} MiB)" for version, mib in memory["held"].items()) or "none"
    lines += ["", printable(f"Held beside the model in service: {held}; at most {memory['limit_mib']:g} MiB.")]
    return lines + [printable(f"{version} is not held: {fault}") for version, fault in memory["faults"].items()]


def experiment_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns the report of an experiment: what each arm earned, and what may be concluded from it."""
    cause = f" ({answer['cause']})" if answer["cause"] else ""
    if answer["shadow"] is not None:
        return _shadow_lines(answer, cause)
    rows = []
    for arm in answer["arms"]:
        rate = arm["click_through"]
        bad = f"{arm['late']} / {arm['failed']} / {arm['below']}"
        rows.append(
            [
                arm["name"],
                f"{arm['share']:.0%}",
                f"{arm['answers']:,}",
                bad,
                f"{arm['subjects']:,}",
                f"{arm['lists']:,}",
                "–" if rate is None else f"{rate:.3%}",
                _lift(arm["comparison"]),
            ]
        )
    head = ["arm", "share", "answers", "late / failed / below", "subjects", "lists", "clicked", "beside the first"]
    lines = [
        printable(f"{answer['name']} is {answer['state']}{cause}."),
        f"Step {answer['step']} of {len(answer['steps'])} lets {answer['portion']:.0%} of each arm in, of "
        f"{answer['share']:.1%} of the layer {answer['layer']}.",
        "",
        *table(head, rows),
    ]
    lines += [printable(sentence) for sentence in map(_withheld, answer["arms"]) if sentence]
    if not answer["counted"]:
        lines.append("Redis is unavailable: nothing is counted.")
    if answer["shares_mismatch"]:
        lines += [
            "",
            f"The shares of the arms do not hold (p {answer['shares_p']:.2g}): believe nothing of this report.",
        ]
    return lines


def planned_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns what a change would do."""
    memory = answer["memory"]
    lines = ["This would", *(printable(f"  - {sentence}") for sentence in answer["would"])]
    lines.append(f"Held now: {memory['held_mib']:g} of {memory['limit_mib']:g} MiB.")
    return lines + [printable(f"It would be refused: {fault}") for fault in answer["refused"]]


def _withheld(arm: Mapping[str, Any]) -> str:
    """What the breaker of an arm keeps from its model; empty if that is nothing."""
    breaker = arm.get("breaker")
    if breaker is None or breaker["model_share"] == 1.0:
        return ""
    return (
        f"The breaker of {arm['name']} is {breaker['state'].replace('_', '-')} ({breaker['cause']}) on this replica: "
        f"the model gets {breaker['model_share']:.0%} of its lists."
    )


def _shadow_lines(answer: Mapping[str, Any], cause: str) -> list[str]:
    """The report of a shadow: what its candidate would have shown, and how long that took."""
    shadow, candidate = answer["shadow"], answer["arms"][0]["name"]
    requests = shadow["requests"]
    others = ", ".join(f"{n:,} {outcome}" for outcome, n in requests.items() if outcome != "compared")
    lines = [
        printable(f"The shadow {answer['name']} is {answer['state']}{cause}."),
        f"{answer['share']:.1%} of the requests run on {candidate} as well: {requests['compared']:,} compared, "
        f"{others}.",
    ]
    if shadow["overlap"] is not None:
        rows = [
            [name, *(f"{shadow[side][figure]:.1f} ms" for figure in ("p50", "p95", "mean"))]
            for name, side in (("shown", "shown_ms"), (candidate, "candidate_ms"))
        ]
        lines += [
            f"{shadow['overlap']:.1%} of the items of a list are the same; {shadow['same_first']:.1%} of the lists "
            f"have the same first item, and {shadow['same_list']:.1%} are the same altogether.",
            "",
            *table(["list", "p50", "p95", "mean"], rows),
        ]
    return lines if answer["counted"] else [*lines, "Redis is unavailable: nothing is counted."]


def _lift(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    if comparison["lift"] is None:
        return "too few clicks yet"
    interval = f"{comparison['low']:+.1%} to {comparison['high']:+.1%}"
    power = f"power for {comparison['effect']:+.0%} {comparison['power']:.0%}"
    return f"{comparison['lift']:+.1%} ({interval}), p {comparison['p']:.3g}, {power}"
