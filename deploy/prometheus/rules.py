"""Writes the rules for Prometheus: `python -m deploy.prometheus.rules > deploy/prometheus/rules.yml`.

For each error budget of the service the SRE workbook's burn-rate alerts (Beyer et al., The Site Reliability Workbook,
2018, chapter 5): somebody is called where the budget burns 14.4 or 6 times too fast, and a ticket is filed where it
burns faster than it may, each over a long window and still in a short one. Two things differ from the book. For a loose
objective 14.4 times the allowed share is more than everything and would never fire, so thresholds end half-way between
what is allowed and everything. And no alert fires by fewer than ten bad ones: three of them at night call nobody.

What the service does by itself about a burning budget happens within seconds (`service.guard.error_budgets`); this is for people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import yaml

from service.guard.error_budgets import BudgetSettings, breach_share

LEAST_BAD = 10
RUNBOOK = "docs/runbook.md"
_DEFAULT = BudgetSettings()


@dataclass(frozen=True, slots=True)
class Objective:
    """`bad` and `all` are selectors of counters."""

    name: str
    allowed: float
    bad: str
    all: str
    summary: str
    description: str

    @property
    def alert(self) -> str:
        return f"Gpt4rec{self.name.capitalize()}BudgetBurns"

    def share(self, window: str) -> str:
        """Name of the recorded share of bad ones."""
        return f"job:gpt4rec_{self.name}_bad:ratio_rate{window}"

    def volume(self, window: str) -> str:
        """Name of the recorded number of all."""
        return f"job:gpt4rec_{self.name}:increase{window}"


@dataclass(frozen=True, slots=True)
class Burn:
    """How many times too fast a budget burns, over a long window and still in a short one."""

    factor: float
    long: str
    short: str
    severity: str


BURNS = (Burn(14.4, "1h", "5m", "page"), Burn(6.0, "6h", "30m", "page"), Burn(1.0, "3d", "6h", "ticket"))
_ATTEMPTS = "gpt4rec_model_attempts_total"
_ANSWERS = "gpt4rec_recommendations_total"
# What an operator forced is nobody's budget, neither while it lasts nor in the windows after it.
_CHOSEN = f'{_ANSWERS}{{reason!="forced"}}'


def objectives(settings: BudgetSettings) -> list[Objective]:
    """The three objectives with the allowed shares of the settings."""
    return [
        Objective(
            "latency", settings.late_share, f'{_ATTEMPTS}{{outcome="late"}}', _ATTEMPTS,
            "Model attempts come too late",
            "Lists come from lower rungs in their place. Is the model slower, are there more requests, or is the "
            "machine busy? See gpt4rec_stage_duration_seconds and gpt4rec_queue_depth.",
        ),
        Objective(
            "errors", settings.failed_share, f'{_ATTEMPTS}{{outcome="failed"}}', _ATTEMPTS,
            "Model attempts fail",
            "Lists come from lower rungs in their place. The log names the errors; was a model or a catalogue changed?",
        ),
        Objective(
            "served", settings.below_share, f'{_ANSWERS}{{reason!="forced",source!="gpt4rec"}}', _CHOSEN,
            "Too few lists come from the model",
            "Everyone is answered, with simpler lists. The reason label of gpt4rec_recommendations_total says why.",
        ),
    ]  # fmt: skip


def rules(settings: BudgetSettings, runbook: str = RUNBOOK) -> dict[str, Any]:
    """The rules file: recorded shares and burn-rate alerts of each objective, and alerts of single parts.

    `runbook` is where the runbook is read; each alert names its entry there."""
    budgets: list[dict[str, Any]] = [
        {"name": f"gpt4rec_{one.name}_budget", "rules": [*_recordings(one), *(_burn_alert(one, b) for b in BURNS)]}
        for one in objectives(settings)
    ]
    groups = [*budgets, {"name": "gpt4rec_operation", "rules": _operation()}]
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        rule["annotations"]["runbook_url"] = f"{runbook}#{rule['alert'].lower()}"
    return {"groups": groups}


def text(settings: BudgetSettings, runbook: str = RUNBOOK) -> str:
    """The rules file as YAML."""
    shares = f"{settings.late_share:g}, {settings.failed_share:g}, {settings.below_share:g}"
    head = (
        "# Written by `python -m deploy.prometheus.rules`; do not edit by hand.\n"
        f"# Allowed shares of late and of failed model attempts, and of answers from below the model: {shares}.\n"
        "# For a service with others (GPT4REC_LATENCY_BUDGET_SHARE, GPT4REC_ERROR_BUDGET_SHARE,\n"
        "# GPT4REC_SERVED_BUDGET_SHARE) write them anew, see --help.\n"
    )
    return head + yaml.dump(rules(settings, runbook), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def threshold(allowed: float, burn: Burn) -> float:
    """The bad share at which an alert fires."""
    return round(breach_share(allowed, burn.factor), 6)


def least(share: float) -> int:
    """How many there must have been for that share of them to be `LEAST_BAD`."""
    return math.ceil(round(LEAST_BAD / share, 6))


def _recordings(one: Objective) -> list[dict[str, Any]]:
    windows = dict.fromkeys(window for burn in BURNS for window in (burn.short, burn.long))
    shares = [
        {
            "record": one.share(window),
            "expr": f"sum by (job) (rate({one.bad}[{window}])) / sum by (job) (rate({one.all}[{window}]))",
        }
        for window in windows
    ]
    volumes = [
        {"record": one.volume(burn.long), "expr": f"sum by (job) (increase({one.all}[{burn.long}]))"} for burn in BURNS
    ]
    return [*shares, *volumes]


def _burn_alert(one: Objective, burn: Burn) -> dict[str, Any]:
    share = threshold(one.allowed, burn)
    expr = (
        f"{one.share(burn.long)} >= {share:g}\n"
        f"and {one.share(burn.short)} >= {share:g}\n"
        f"and {one.volume(burn.long)} >= {least(share)}"
    )
    return {
        "alert": one.alert,
        "expr": expr,
        "labels": {"severity": burn.severity, "window": burn.long},
        "annotations": {
            "summary": f"{one.summary}: {{{{ $value | humanizePercentage }}}} of them over {burn.long}, "
            f"{one.allowed * 100:g}% are allowed",
            "description": one.description,
        },
    }


def _operation() -> list[dict[str, Any]]:
    answered = f"sum by (job) (rate({_ANSWERS}[5m]))"
    return [
        _alert(
            "Gpt4recModeForced", "max by (job, mode) (gpt4rec_fallback_mode{mode!=\"auto\"}) > 0", "1h", "ticket",
            "The mode {{ $labels.mode }} is forced for an hour",
            "While it is, nothing adapts to load and faults. `gpt4rec ops fallback get` says who forced it, and why.",
        ),
        _alert(
            "Gpt4recReplicasDisagree",
            "count by (job) (count by (job, mode) (gpt4rec_fallback_mode > 0)) > 1", "1m", "page",
            "Replicas go by different modes",
            "A change of the mode takes a second at most where Redis is there. Do all replicas reach the same Redis?",
        ),
        _alert(
            "Gpt4recBreakerNotClosed", 'max by (job) (gpt4rec_breaker_state{state!="closed"}) > 0', "15m", "ticket",
            "The model has not had all of the traffic for a quarter of an hour",
            "`gpt4rec ops fallback get` says what it fell for, and what share of the traffic it has.",
        ),
        _alert(
            "Gpt4recRedisFails",
            "sum by (job) (rate(gpt4rec_redis_errors_total[5m])) > 0.2\n"
            f"and sum by (job) (rate(gpt4rec_redis_errors_total[5m])) > 0.05 * {answered}", "2m", "page",
            "Redis does not answer: {{ $value | humanize }} failed commands a second",
            "Lists are made without histories, and /events refuses what it cannot keep.",
        ),
        _alert(
            "Gpt4recEventsRefused",
            'sum by (job) (increase(gpt4rec_events_total{outcome="failed"}[5m])) >= 10', "5m", "page",
            "Events are refused: {{ $value | humanize }} in 5 minutes",
            "Clients were told 503 and have to send them again. Redis is away, full, or cannot write.",
        ),
        _alert(
            "Gpt4recDeadlineMissed",
            f"sum by (job) (rate(gpt4rec_deadline_missed_total[5m])) > 0.01 * {answered}\n"
            f"and sum by (job) (increase({_ANSWERS}[5m])) >= {least(0.01)}", "10m", "ticket",
            "More than 1% of the lists leave after their deadline",
            "The ladder begins no rung that cannot finish, so the process itself waits: is the machine overloaded? See "
            "gpt4rec_event_loop_lag_seconds.",
        ),
    ]  # fmt: skip


def _alert(name: str, expr: str, lasts: str, severity: str, summary: str, description: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": lasts,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines as blocks; the lists of rules indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def main(
    latency_share: Annotated[
        float, typer.Option(help="Share of model attempts that may be late.")
    ] = _DEFAULT.late_share,
    error_share: Annotated[float, typer.Option(help="Share of model attempts that may fail.")] = _DEFAULT.failed_share,
    served_share: Annotated[
        float, typer.Option(help="Share of lists that may come from below the model.")
    ] = _DEFAULT.below_share,
    runbook: Annotated[str, typer.Option(help="Where the runbook is read: its URL.")] = RUNBOOK,
) -> None:
    """Prints the rules; the allowed shares should be those of the service."""
    for name, share in (("latency", latency_share), ("error", error_share), ("served", served_share)):
        if not 0.0 < share <= 1.0:
            raise typer.BadParameter("a share lies in (0, 1]", param_hint=f"--{name}-share")
    settings = BudgetSettings(late_share=latency_share, failed_share=error_share, below_share=served_share)
    typer.echo(text(settings, runbook), nl=False)


if __name__ == "__main__":
    typer.run(main)
