"""Panels of what lists and traffic are like, and of the processes beside the service: Kafka, the sink and the loop."""

from __future__ import annotations

from deploy.grafana.queries import Panel, Query, by_lists, gauge, quantile, rate

WATCHED = (
    Panel(
        "Drift of the last hour", "Divergence from the model's baseline in bits; each statistic has a threshold.",
        (Query(gauge("drift", "max", "statistic", window="hour"), "{{statistic}}"),
         Query(gauge("drift_threshold", "min", "statistic", window="hour"), "threshold {{statistic}}")),
    ),
    Panel(
        "Drift of the last day", "Replicas whose day drifted, by statistic, and replicas without a baseline.",
        (Query(gauge("drifted", "sum", "statistic", window="day"), "{{statistic}}"),
         Query(gauge("watch_baseline", "sum", state="missing"), "no baseline")),
    ),
    Panel(
        "Coverage, tail and repeats", "Of the last hour, as the mean of the replicas, weighted by their lists.",
        tuple(Query(by_lists(name), name) for name in
              ("coverage", "tail_share", "repeats", "new_users", "unknown_items")), "percentunit",
    ),
    Panel(
        "Scores and what users take",
        "Of the last hour: how often what was taken scores higher (0.5 is chance), and the calibration error.",
        tuple(Query(by_lists(name), name) for name in ("score_auc", "score_calibration")), "percentunit",
    ),
    Panel(
        "Overlap with yesterday", "Of the items listed on the last day with those of the day before.",
        (Query(by_lists("overlap_yesterday", "day"), "overlap"),), "percentunit",
    ),
    Panel(
        "Rare items by segment", "Share of the items listed that are tail, cold or new, for each group of users.",
        (Query(rate("shown_items_total", "segment", popularity="tail|cold|new") + " / "
               + rate("shown_items_total", "segment"), "{{segment}}"),), "percentunit",
    ),
    Panel(
        "Entropy and novelty", "Of the last hour, in bits.",
        tuple(Query(by_lists(name), name) for name in ("entropy", "novelty")),
    ),
    Panel(
        "Listed items by popularity", "Of all segments.",
        (Query(rate("shown_items_total", "popularity"), "{{popularity}}"),), stacked=True,
    ),
    Panel(
        "Listed items by category", "Of all segments.",
        (Query(rate("shown_categories_total", "category"), "{{category}}"),), stacked=True,
    ),
    Panel(
        "Lists put into order", "By an order model: changed by it, or the same; per second, of all segments.",
        (Query(rate("ordered_lists_total", "outcome"), "{{outcome}}"),), stacked=True,
    ),
    Panel(
        "Watched, skipped", "Lists and events of the last hour, and those that are not in the figures, per second.",
        (Query(gauge("watched", "sum", "kind", window="hour"), "{{kind}}"),
         Query(f"{rate('watch_skipped_total', 'kind')} or vector(0)", "skipped {{kind}}")),
    ),
)  # fmt: skip
KAFKA = (
    Panel(
        "Kafka: messages not stored yet", "By partition, of `gpt4rec ingest kafka`.",
        (Query(gauge("intake_lag", "sum", "partition"), "{{partition}}"),), stacked=True,
    ),
    Panel(
        "Kafka: messages and dead events", "Messages by outcome, and events that went to the dead-letter topic.",
        (Query(rate("intake_messages_total", "outcome"), "{{outcome}}"),
         Query(rate("intake_events_total", outcome="dead"), "dead events")), "reqps",
    ),
    Panel(
        "Kafka: from the message to the store", "From its timestamp to the acknowledgement of the store.",
        tuple(Query(quantile(share, "intake_delay_seconds"), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)), "s",
    ),
    Panel(
        "Kafka: held up", "Processes that read nothing because Redis or the dead-letter topic is away, and retries.",
        (Query(gauge("intake_paused", "sum"), "held up"),
         Query(f"{rate('intake_retries_total', 'what')} or vector(0)", "{{what}}")),
    ),
)  # fmt: skip


LOOP = (
    Panel(
        "The sink: entries in no file yet", "By stream, of `gpt4rec loop sink`.",
        (Query(gauge("sink_lag", "sum", "stream"), "{{stream}}"),), stacked=True,
    ),
    Panel(
        "The sink: entries", "By outcome, and attempts that failed.",
        (Query(rate("sink_entries_total", "outcome"), "{{outcome}}"),
         Query(f"{rate('sink_failures_total', 'what')} or vector(0)", "failed: {{what}}")), "reqps",
    ),
    Panel(
        "The loop: cycles in a day", "By outcome, of `gpt4rec loop run`.",
        (Query("sum by (outcome) (increase(gpt4rec_loop_cycles_total[1d]))", "{{outcome}}"),), stacked=True,
    ),
    Panel(
        "The loop: steps", "How long each took when it last ended.",
        (Query(gauge("loop_step_seconds", "max", "step"), "{{step}}"),), "s",
    ),
    Panel(
        "What came of the lists: click-through", "Lists of yesterday and today with a click, by model.",
        (Query(gauge("outcomes_click_through", "max", "group", dimension="model"), "{{group}}"),), "percentunit",
    ),
    Panel(
        "What came of the lists: by arm", "Click-through of the arms of experiments.",
        (Query(gauge("outcomes_click_through", "max", "group", dimension="arm"), "{{group}}"),), "percentunit",
    ),
    Panel(
        "What came of the lists: not told apart",
        "Lists that count as (other), because a day has too many groups, and lists closed before their time.",
        (Query(f"{rate('sink_unnamed_lists_total', 'dimension')} or vector(0)", "(other): {{dimension}}"),
         Query(rate("sink_closed_early_total"), "closed early")), "reqps",
    ),
)  # fmt: skip
