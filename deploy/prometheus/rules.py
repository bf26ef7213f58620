"""Generates the rules for Prometheus: `python -m deploy.prometheus.rules > deploy/prometheus/rules.yml`.

Each error budget of the service gets the burn-rate alerts of the SRE workbook (Beyer et al., The Site Reliability
Workbook, 2018, chapter 5): a page if the budget burns 14.4 or 6 times too fast, a ticket if it burns faster than
allowed, each over a long window and still in a short one. Two things differ from the book. With a loose objective, 14.4
times the allowed share would exceed 100 % and never fire, so thresholds are capped half-way between the allowed share
and 100 %. And no alert fires on fewer than ten bad events: three failures at night page nobody.

A deployment with spaces has the label `space` in its metrics, and each space has its budgets; without spaces the label
is missing, and everything is as if it were not named here. What one fault sets off in several alerts,
`alertmanager.yml` makes one page of.

The service itself reacts to a burning budget within seconds (`service.guard.error_budgets`); these alerts are for
people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import yaml

from service.cli.outermost import run_command
from service.guard.error_budgets import BudgetSettings, breach_share

LEAST_BAD = 10
RUNBOOK = "docs/runbook.md"
_DEFAULT = BudgetSettings()


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective and its error budget.

    Attributes:
        allowed: Share of bad events that is allowed.
        bad: Selector of the counter of bad events.
        all: Selector of the counter of all events.
    """

    name: str
    allowed: float
    bad: str
    all: str
    summary: str
    description: str

    @property
    def alert(self) -> str:
        """Name of the alert."""
        return f"Gpt4rec{self.name.capitalize()}BudgetBurns"

    def share(self, window: str) -> str:
        """Returns the name of the recorded share of bad events."""
        return f"job:gpt4rec_{self.name}_bad:ratio_rate{window}"

    def volume(self, window: str) -> str:
        """Returns the name of the recorded number of all events."""
        return f"job:gpt4rec_{self.name}:increase{window}"


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate (how many times too fast a budget burns), over a long window and still in a short one."""

    factor: float
    long: str
    short: str
    severity: str


BURNS = (Burn(14.4, "1h", "5m", "page"), Burn(6.0, "6h", "30m", "page"), Burn(1.0, "3d", "6h", "ticket"))
# What has budgets, a mode and a breaker of its own.
_BY = "job, space"
# How long the alert of a cause goes on when the cause is gone: until the windows of what it caused have forgotten it.
_AFTERWARDS = "30m"
_ATTEMPTS = "gpt4rec_model_attempts_total"
_ANSWERS = "gpt4rec_recommendations_total"
# Lists that an operator forced, or whose filter was new, count against no budget, neither now nor in later windows.
_COUNTED = 'reason!~"forced|filter_not_ready"'
_CHOSEN = f"{_ANSWERS}{{{_COUNTED}}}"


def objectives(settings: BudgetSettings) -> list[Objective]:
    """Returns the three objectives with the allowed shares of the settings."""
    return [
        Objective(
            "latency", settings.late_share, f'{_ATTEMPTS}{{outcome="late"}}', _ATTEMPTS,
            "Model attempts are late",
            "Lists come from lower rungs instead. Is the model slower, is there more traffic, or is the machine busy? "
            "See gpt4rec_stage_duration_seconds and gpt4rec_queue_depth.",
        ),
        Objective(
            "errors", settings.failed_share, f'{_ATTEMPTS}{{outcome="failed"}}', _ATTEMPTS,
            "Model attempts fail",
            "Lists come from lower rungs instead. The log has the errors. Was the model or the catalogue changed?",
        ),
        Objective(
            "served", settings.below_share, f'{_ANSWERS}{{{_COUNTED},rung=~"item_cf|popular"}}', _CHOSEN,
            "Too few lists come from the model",
            "Every request is answered, but with simpler lists. The label reason of gpt4rec_recommendations_total "
            "says why.",
        ),
    ]  # fmt: skip


def rules(settings: BudgetSettings, runbook: str = RUNBOOK) -> dict[str, Any]:
    """Returns the rules file: recorded shares and burn-rate alerts of each objective, and alerts of single parts.

    Args:
        settings: The allowed shares.
        runbook: URL of the runbook; each alert links to its entry there.
    """
    budgets: list[dict[str, Any]] = [
        {"name": f"gpt4rec_{one.name}_budget", "rules": [*_recordings(one), *(_burn_alert(one, b) for b in BURNS)]}
        for one in objectives(settings)
    ]
    groups = [*budgets, {"name": "gpt4rec_operation", "rules": _operation()}]
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        rule["annotations"]["runbook_url"] = f"{runbook}#{rule['alert'].lower()}"
    return {"groups": groups}


def text(settings: BudgetSettings, runbook: str = RUNBOOK) -> str:
    """Returns the rules file as YAML."""
    shares = f"{settings.late_share:g}, {settings.failed_share:g}, {settings.below_share:g}"
    head = (
        "# Generated by `python -m deploy.prometheus.rules`; do not edit by hand.\n"
        f"# Allowed shares of late and of failed model attempts, and of lists from below the model: {shares}.\n"
        "# If the service has others (GPT4REC_LATENCY_BUDGET_SHARE, GPT4REC_ERROR_BUDGET_SHARE,\n"
        "# GPT4REC_SERVED_BUDGET_SHARE), generate the rules again; see --help.\n"
    )
    return head + yaml.dump(rules(settings, runbook), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def threshold(allowed: float, burn: Burn) -> float:
    """Returns the share of bad events at which an alert fires."""
    return round(breach_share(allowed, burn.factor), 6)


def least(share: float) -> int:
    """Returns the number of events of which this share is `LEAST_BAD`."""
    return math.ceil(round(LEAST_BAD / share, 6))


def _recordings(one: Objective) -> list[dict[str, Any]]:
    windows = dict.fromkeys(window for burn in BURNS for window in (burn.short, burn.long))
    shares = [
        {
            "record": one.share(window),
            "expr": f"sum by ({_BY}) (rate({one.bad}[{window}])) / sum by ({_BY}) (rate({one.all}[{window}]))",
        }
        for window in windows
    ]
    volumes = [
        {"record": one.volume(burn.long), "expr": f"sum by ({_BY}) (increase({one.all}[{burn.long}]))"}
        for burn in BURNS
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
            "Gpt4recModeForced", f"max by ({_BY}, mode) (gpt4rec_fallback_mode{{mode!=\"auto\"}}) > 0", "1h", "ticket",
            "The mode {{ $labels.mode }} has been forced for an hour",
            "Meanwhile nothing adapts to load and faults. `gpt4rec ops fallback get` shows who forced it, and why.",
        ),
        _alert(
            "Gpt4recReplicasDisagree",
            f"count by ({_BY}) (count by ({_BY}, mode) (gpt4rec_fallback_mode > 0)) > 1", "1m", "page",
            "Replicas have different modes",
            "With Redis a change of the mode reaches all replicas within a second. Do they all reach the same Redis?",
        ),
        _alert(
            "Gpt4recBreakerNotClosed",
            f'max by ({_BY}) (gpt4rec_breaker_state{{state!="closed"}}) > 0', "15m", "ticket",
            "The breaker has kept traffic from the model for 15 minutes",
            "`gpt4rec ops fallback get` shows why, and which share of the traffic the model gets.",
        ),
        _alert(
            "Gpt4recRedisFails",
            "sum by (job) (rate(gpt4rec_redis_errors_total[5m])) > 0.2\n"
            f"and sum by (job) (rate(gpt4rec_redis_errors_total[5m])) > 0.05 * {answered}", "2m", "page",
            "Redis does not answer: {{ $value | humanize }} failed commands a second",
            "Lists are made without histories, and /events refuses events that it cannot keep.",
            keeps=_AFTERWARDS,
        ),
        _alert(
            "Gpt4recFilesHang", "max by (job, file) (gpt4rec_file_hangs) > 0", "1m", "page",
            "{{ $labels.file }} cannot be read: its disk hangs",
            "What was read last stays in force. If the file holds secrets, ops tokens stop working after "
            "GPT4REC_SECRET_TRUST_S.",
        ),
        _alert(
            "Gpt4recEventsRefused",
            'sum by (job) (increase(gpt4rec_events_total{outcome="failed"}[5m])) >= 10', "5m", "page",
            "Events are refused: {{ $value | humanize }} in 5 minutes",
            "Clients got 503 and have to send the events again. Redis is unreachable, full, or cannot write.",
        ),
        _alert(
            "Gpt4recDeadlineMissed",
            f"sum by ({_BY}) (rate(gpt4rec_deadline_missed_total[5m]))"
            f" > 0.01 * sum by ({_BY}) (rate({_ANSWERS}[5m]))\n"
            f"and sum by ({_BY}) (increase({_ANSWERS}[5m])) >= {least(0.01)}", "10m", "ticket",
            "More than 1% of the lists miss their deadline",
            "No rung is started that cannot finish in time, so the process itself is held up. Is the machine "
            "overloaded? See gpt4rec_event_loop_lag_seconds.",
        ),
    ]  # fmt: skip


def _alert(
    name: str, expr: str, lasts: str, severity: str, summary: str, description: str, keeps: str | None = None
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": lasts,
        **({} if keeps is None else {"keep_firing_for": keeps}),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


class _Dumper(yaml.SafeDumper):
    """Writes expressions of several lines as blocks, and indents the lists of rules."""

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
    runbook: Annotated[str, typer.Option(help="URL of the runbook.")] = RUNBOOK,
) -> None:
    """Prints the rules. The allowed shares should be those of the service."""
    for name, share in (("latency", latency_share), ("error", error_share), ("served", served_share)):
        if not 0.0 < share <= 1.0:
            raise typer.BadParameter("must be above 0 and at most 1", param_hint=f"--{name}-share")
    settings = BudgetSettings(late_share=latency_share, failed_share=error_share, below_share=served_share)
    typer.echo(text(settings, runbook), nl=False)


if __name__ == "__main__":
    run_command(main)
