"""Panels of the inside of the service: stages, queues, event loop, files; events, Redis, items, caches and roles."""

from __future__ import annotations

from deploy.grafana.queries import Panel, Query, gauge, hourly, quantile, rate

INSIDE = (
    Panel(
        "p95 of each stage", "Failures included.",
        (Query(quantile(0.95, "stage_duration_seconds", "le, stage"), "{{stage}}"),), "s",
    ),
    Panel(
        "Rows per graph run", "The mean: how full batches are.",
        (Query(f"{rate('batch_size_sum', 'graph')} / {rate('batch_size_count', 'graph')}", "{{graph}}"),),
    ),
    Panel(
        "In flight", "Requests being answered, and jobs that wait for the engine.",
        (Query(gauge("inflight", "sum"), "in flight"), Query(gauge("queue_depth", "sum"), "queue")),
    ),
    Panel(
        "Requests on their way",
        "Bytes of requests not answered yet and of answers not read yet; how many were ended because of them.",
        (Query(gauge("unanswered_bytes", "sum"), "bytes"),
         Query(f"{rate('bodies_refused_total', 'reason')} or vector(0)", "{{reason}}")),
    ),
    Panel(
        "Event loop lag", "The worst replica.", (Query(gauge("event_loop_lag_seconds", "max"), "lag"),), "s"
    ),
    Panel(
        "Workers replaced, log lines lost", "Per hour. Log lines are lost when their reader stalls or is gone.",
        (Query(hourly("worker_replaced"), "workers"), Query(hourly("log_lines_dropped"), "log lines")),
    ),
    Panel(
        "Spans", "Of traces that are kept; those that fail are lost: the collector is away or refuses them.",
        (Query(f"{rate('spans_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Files that hang", "Replicas that cannot read a file they follow.",
        (Query(f"{gauge('file_hangs', 'sum', 'file')} or vector(0)", "{{file}}"),), stacked=True,
    ),
)  # fmt: skip
REDIS = (
    Panel(
        "Events", "By outcome; failed events were refused with 503.",
        (Query(rate("events_total", "outcome"), "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Failed Redis commands", "Including those that took too long.",
        (Query(f"{rate('redis_errors_total', 'operation')} or vector(0)", "{{operation}}"),), "reqps",
    ),
    Panel(
        "Redis", "Replicas by what the latest probe of Redis found: ok, or why it cannot be used.",
        (Query(f"{gauge('redis_state', 'sum', 'cause')} > 0", "{{cause}}"),), stacked=True,
    ),
    Panel(
        "Histories gone", "Reads that found a part of a history missing: Redis evicts keys, or somebody deletes them.",
        (Query(f"{rate('histories_missing_total', 'part')} or vector(0)", "{{part}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Recorded lists", "Lists by what became of their record; all but `not_sampled` and `recorded` are lost.",
        (Query(f"{rate('exposures_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Recorded events", "Events by what became of their record in the stream of events.",
        (Query(f"{rate('recorded_events_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Records that wait", "Lists and events that are not written yet; they grow while Redis is away.",
        (Query(gauge('exposures_waiting', 'sum', 'stream'), "{{stream}}"),), stacked=True,
    ),
    Panel(
        "Trimmed unread", "Entries of the streams that were trimmed before the sink was given them.",
        (Query(f"{rate('exposures_trimmed_unread_total', 'stream')} or vector(0)", "{{stream}}"),), "reqps",
    ),
    Panel(
        "Roles: subjects handed over", "By the role `answer`, by what became of them, and those that wait for Redis.",
        (Query(rate("encode_handed_total", "outcome"), "{{outcome}}"),
         Query(gauge("encode_waiting", "sum"), "waiting")), "short",
    ),
    Panel(
        "Roles: entries", "Of the stream, by what the role `encode` made of them, and those that are not done.",
        (Query(rate("encode_entries_total", "outcome"), "{{outcome}}"),
         Query(gauge("encode_lag_entries", "max"), "not done")), "short",
    ),
    Panel(
        "Roles: from the event to the state", "p95 until a state is stored, and the age of the oldest entry not done.",
        (Query(quantile(0.95, "encode_delay_seconds"), "p95"),
         Query(gauge("encode_lag_seconds", "max"), "oldest")), "s",
    ),
    Panel(
        "Rate limit checks", "For keys with a rate: the verdict of Redis, or of the replica alone.",
        (Query(f"{rate('rate_checks_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "New filters", "By outcome; refused: the ration of a caller, or of all, is spent.",
        (Query(f"{rate('filter_builds_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Items changed", "Over HTTP, by outcome.",
        (Query(f"{rate('item_changes_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Items stored", "Over HTTP, as the replica that knows most has them.",
        (Query(gauge("items_stored", "max"), "items"),),
    ),
    Panel(
        "Delay of items", "From a change of an item to the lists of a replica, in 95 of 100 cases.",
        (Query(quantile(0.95, "item_delay_seconds"), "p95"),), "s",
    ),
    Panel(
        "Filters held", "Masks of filters in the memory of all replicas.",
        (Query(gauge("filters_held", "sum"), "filters"), Query(gauge("filter_bytes", "sum"), "bytes")),
    ),
    Panel(
        "History and state cache", "By level and outcome: in the process (memory) and in Redis (state).",
        (Query(rate("state_cache_total", "level, outcome"), "{{level}} {{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Kept lists", "Share of the answers whose list was kept from the question before, and of those never kept.",
        tuple(Query(f"{rate('kept_lists_total', outcome=name)} / {rate('kept_lists_total')}", name)
              for name in ("hit", "never")), "percentunit",
    ),
    Panel(
        "Memory of kept lists", "In all replicas; bounded by GPT4REC_ANSWERS_MIB in each process.",
        (Query(gauge("kept_list_bytes", "sum"), "bytes"),), "bytes",
    ),
)  # fmt: skip
