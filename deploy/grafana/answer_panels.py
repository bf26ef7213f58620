"""Panels of the answers that callers get, all together and by space and segment, and of the budgets behind them."""

from __future__ import annotations

from deploy.grafana.queries import BUDGET_S, CHOSEN, Panel, Query, gauge, quantile, rate
from deploy.prometheus.rules import BURNS, objectives
from service.guard.error_budgets import BudgetSettings

_LISTS = {"route": "/recommend"}
_DURATION = "request_duration_seconds"
ANSWERS = (
    Panel(
        "Requests", "By route.", (Query(rate(f"{_DURATION}_count", "route"), "{{route}}"),), "reqps", stacked=True
    ),
    Panel(
        "Latency of /recommend",
        "From arrival to the last byte, whatever the outcome; the line is the default budget.",
        tuple(Query(quantile(share, _DURATION, **_LISTS), f"p{share * 100:g}", exemplars=True)
              for share in (0.5, 0.95, 0.99)),
        "s", limit=BUDGET_S,
    ),
    Panel(
        "Lists by source", "What made them: the model, the signals below it (item_cf) or popularity.",
        (Query(rate("recommendations_total", "source"), "{{source}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Degraded lists by reason", "Why a list is not the model's best.",
        (Query(rate("recommendations_total", "reason"), "{{reason}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Rules of lists", "Lists by what became of each rule: held, bit, not_kept.",
        (Query(rate("rules_total", "rule, result"), "{{rule}} {{result}}"),), "reqps",
    ),
    Panel(
        "Score given up for rules", "Each second, by rule and by what scored the list.",
        (Query(rate("rule_cost_total", "rule, source"), "{{rule}} {{source}}"),), "short",
    ),
    Panel(
        "p99 of /recommend by source", "Lists of the fallback must be in time as well.",
        (Query(quantile(0.99, _DURATION, "le, source", **_LISTS), "{{source}}"),), "s", limit=BUDGET_S,
    ),
    Panel(
        "Distribution of the latency of /recommend", "Each column shows how many requests took how long.",
        (Query(rate(f"{_DURATION}_bucket", "le", **_LISTS), "{{le}}", heat=True),), "s", kind="heatmap",
    ),
    Panel(
        "Lists that missed their deadline",
        "By rung. No rung is started that cannot finish in time, so here the process was held up.",
        (Query(f"{rate('deadline_missed_total', 'rung')} or vector(0)", "{{rung}}"),), "reqps",
    ),
    Panel(
        "Deprecated, still used", "By what it is and by the name of the key or token.",
        (Query(f"{rate('deprecated_uses_total', 'what, caller')} or vector(0)", "{{what}} {{caller}}"),), "reqps",
    ),
    Panel(
        "Answers by status", "All routes; the service degrades instead of answering 5xx.",
        (Query(rate(f"{_DURATION}_count", "status"), "{{status}}"),), "reqps", stacked=True,
    ),
)  # fmt: skip
_BELOW = {"rung": "narrow|item_cf|popular"}
PARTS = (
    Panel(
        "Lists by space", "Empty where the deployment has no spaces.",
        (Query(rate("recommendations_total", "space"), "{{space}}"),), "reqps", stacked=True,
    ),
    Panel(
        "p99 of /recommend by space", "The line is the default budget; a space may have its own.",
        (Query(quantile(0.99, _DURATION, "le, space", **_LISTS), "{{space}}"),), "s", limit=BUDGET_S,
    ),
    Panel(
        "Degraded lists by space", "Share of the lists from a rung below the widest.",
        (Query(f"{rate('recommendations_total', 'space', **_BELOW)} / {rate('recommendations_total', 'space')}",
               "{{space}}"),), "percentunit",
    ),
    Panel(
        "Answers that are 5xx, by route", "Probes too; `Gpt4recAnswersFail` leaves them out.",
        (Query(f"{rate(f'{_DURATION}_count', 'route, space', status='5..')} or vector(0)", "{{route}} {{space}}"),),
        "reqps",
    ),
    Panel(
        "Requests beyond the bound of their space",
        "By what they got; too many requests of the space were in progress already.",
        (Query(f"{rate('crowded_total', 'space, outcome')} or vector(0)", "{{space}} {{outcome}}"),), "reqps",
    ),
    Panel(
        "Models that make room for each other",
        "Closed for those of other spaces, opened again, and closed at present.",
        (Query(f"{rate('model_evictions_total', 'space')} or vector(0)", "closed {{space}}"),
         Query(f"{rate('model_reopenings_total', 'space, outcome')} or vector(0)", "{{outcome}} {{space}}"),
         Query(gauge("models_evicted", "sum"), "closed now")),
    ),
    Panel(
        "Lists by segment", "Of the user, by the policies.",
        (Query(rate("recommendations_total", "segment"), "{{segment}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Degraded lists by segment", "Share of the lists from a rung below the widest.",
        (Query(f"{rate('recommendations_total', 'segment', **_BELOW)} / {rate('recommendations_total', 'segment')}",
               "{{segment}}"),), "percentunit",
    ),
)  # fmt: skip


def budgets(settings: BudgetSettings) -> tuple[Panel, ...]:
    """Returns the panels of the budgets, the breaker, the mode and the models."""
    named = objectives(settings)
    shares = [
        Query(f'{one.share(BURNS[0].long)}{{job=~"$job", space=~"$space"}}', f"{one.name} {{{{space}}}}")
        for one in named
    ]
    return (
        Panel(
            "Burn rate", "How many times too fast each budget burns, in the service's own windows. 1 is allowed.",
            (Query(gauge("error_budget_burn_rate", "max", "objective, window"), "{{objective}} {{window}}"),),
            limit=1.0,
        ),
        Panel(
            f"Bad share over {BURNS[0].long}", "Recorded by the rules; the page alerts use it.",
            tuple(shares), "percentunit",
        ),
        Panel(
            "Model attempts", "By outcome.", (Query(rate("model_attempts_total", "outcome"), "{{outcome}}"),),
            "reqps", stacked=True,
        ),
        Panel(
            "Breaker", "Replicas in each state.", (Query(gauge("breaker_state", "sum", "state"), "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Mode", "Replicas in each mode.", (Query(gauge("fallback_mode", "sum", "mode"), "{{mode}}"),), stacked=True
        ),
        Panel(
            "Model", "Replicas that serve each version.",
            (Query(gauge("model_info", "sum", "version"), "{{version}}"),), stacked=True,
        ),
        Panel(
            "Lists by arm", "Of running experiments; a list may be late, failed and below the model at once.",
            (Query(rate("experiment_lists_total", "experiment, arm, outcome"),
                   "{{experiment}} {{arm}} {{outcome}}"),), "reqps",
        ),
        Panel(
            "Withheld from the model by arm", "What the breakers of arms keep from their models, on the worst replica.",
            (Query(gauge("experiment_model_withheld", "max", "experiment, arm"), "{{experiment}} {{arm}}"),),
            "percentunit", limit=1.0,
        ),
        Panel(
            "Shadows", "Requests that run on a candidate as well, by what became of them.",
            (Query(rate("shadow_requests_total", "experiment, outcome"), "{{experiment}} {{outcome}}"),), "reqps",
        ),
        Panel(
            "Shadows: overlap", "Mean share of the items of a list that the candidate would have shown too.",
            (Query(f"{rate('shadow_overlap_sum', 'experiment')} / {rate('shadow_overlap_count', 'experiment')}",
                   "{{experiment}}"),), "percentunit",
        ),
        Panel(
            "Shadows: time of a list", "p95 of what was shown, waiting included, and of the candidate.",
            (Query(quantile(0.95, "shadow_duration_seconds", "le, experiment, list"),
                   "{{experiment}} {{list}}"),), "s",
        ),
        Panel(
            "Models held", "Beside the one in service, on the replica with most of them.",
            (Query(gauge("models_held", "max"), "models"),
             Query(f"{gauge('model_bytes_held', 'max')} / 2^30", "GiB")),
        ),
        Panel(
            "Model changes", "By outcome, per hour.",
            (Query(f"sum by (outcome) (increase(gpt4rec_model_reload_total{{{CHOSEN}}}[1h])) or vector(0)",
                   "{{outcome}}"),),
        ),
    )  # fmt: skip
