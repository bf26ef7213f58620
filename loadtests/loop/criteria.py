"""The criteria of the loop, written down before anything is measured. Pure.

A criterion is the name of a row of `results/loop.json`. The commands record their rows with `row`, so a figure never
chooses its own limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.common import results

JOIN = "join: outcomes that differ from plain loops, 100,000 events"
DRAWS = "draws: chi-square of 100,000 lists against their recorded law, smallest p of all positions, corrected"
LAW = "draws: largest difference of a recorded log-propensity from the law of its candidates"
COST = "recording: processor time of a /recommend, % more with recording, upper end of the 95 % interval"
COST_LATENCY = "recording: median latency of a /recommend, % more with recording, upper end of the 95 % interval"
COST_TAIL = "recording: p99 of the latency of a /recommend, % more with recording, upper end of the 95 % interval"
# Estimators whose intervals are judged, and the least effective sample at which they are.
ESTIMATORS = ("ips", "snips", "dr", "list_ips")
LEAST_EFFECTIVE = 200
REPLICATIONS = 2_000


KAFKA_ONCE = "kafka: events that are in the store exactly once, consumer and broker killed, 1,000,000 events"

# Experiments. Two equal arms are looked at every hour for two weeks; lists of a user are alike.
SEQUENTIAL_RUNS = 2_000
FALSE_ALARMS = "sequential test: false alarms of two equal arms, looked at hourly for two weeks, clustered by user, %"
FALSE_MISMATCHES = "check of shares: two equal arms that are called uneven, looked at hourly for two weeks, %"
# Lists of both arms together, at a click-through of a tenth, by which a drop must be found.
SEQUENTIAL_LISTS = 250_000
DROPS_FOUND = f"sequential test: arms with 10 % fewer clicks that are found within {SEQUENTIAL_LISTS:,} lists, %"
# Lists of the canary.
CANARY_LISTS = 2_000
CANARIES_BACK = f"canary: those with half the clicks that are back within {CANARY_LISTS:,} of their lists, %"

# Half of them promotions, half returns, on two replicas.
PROMOTIONS = 50
PROMOTED = f"promotions: errors and mixed answers during {PROMOTIONS} promotions and returns under load"
# Answers of another rung are not compared with what the models list, so they must be few.
PROMOTED_FULL = f"promotions: answers that a model listed, during {PROMOTIONS} promotions and returns under load, %"


def kafka_stage(stage: str) -> str:
    """Returns the name of a row: the 99th percentile of a stage at 500 events a second; "all" is the way as a whole."""
    return f"kafka: p99 of the stage {stage}, 500 events/s"


def coverage(estimator: str, end: str) -> str:
    """Returns the name of a row: coverage of an estimator's interval in the setting with the "least", or the "most"."""
    return f"ope: coverage of the 95 % interval, {estimator}, {end} of the settings, %"


def forgetting(part: str) -> str:
    """Returns the name of a row of an increment with consolidation and replay.

    Args:
        part: The "time" of its preparation, epochs and validations; that of its whole "command"; of the command with
            its "choice" of the strength, as after each whole training; or its quality on "new" or "old" questions.
    """
    what = {
        "time": "time",
        "command": "time of the command",
        "choice": "time of the command, with the choice of the strength,",
        "new": "NDCG@10 on new questions",
        "old": "NDCG@10 on old questions",
    }[part]
    return f"forgetting: {what} of an increment, of a whole training, %"


DRIFT_QUIET = "drift: alerts in 30 simulated quiet days"
QUIET_DAYS = 30


def drift_after(shift: str) -> str:
    """Returns the name of a row: how long after a shift the first alert comes. A window is an hour."""
    return f"drift: from a shift of the {shift} to its alert"


# The whole loop on simulated users. The lists that count are those of the last cycles, whatever made them, of users who
# are not held out, against those of the hold-out in the same time; traffic that looks made is left out.
WHOLE_CYCLES, WHOLE_LAST, WHOLE_HOLDOUT = 10, 3, 0.3
WHOLE_LIFT = (
    f"loop: clicks per list over the frozen hold-out, last {WHOLE_LAST} of {WHOLE_CYCLES} cycles, lower end of the "
    "95 % interval, %"
)
WHOLE_BETTER = "loop: experiment of a planted better arm, always-valid p"
WHOLE_EQUAL = "loop: experiment of a planted equal arm, always-valid p"
# What an arm earns in the experiment, in clicks per thousand lists (`report online`), against the doubly robust
# estimate from before it: 0 must be within the 95 % interval of the difference, which has the errors of both.
WHOLE_FORETOLD = "loop: planted arms whose clicks differ from what off-policy evaluation foretold, of 2"
# The same, more strictly: what was measured counts as known, though it has an error of its own.
WHOLE_OUTSIDE = "loop: planted arms whose clicks are outside the 95 % interval of off-policy evaluation, of 2"
WHOLE_MADE = "loop: events of made traffic in the data of the last model"
SIGNIFICANT = 0.05

# A service does it with spare time; the hours are those of one thread that does nothing else.
REENCODED_USERS = 1_000_000
REENCODE = f"increments: time to encode the histories of {REENCODED_USERS:,} users anew, one thread"

SINK_LOST = "sink: lists in the streams that are not in the files exactly once, sink and service killed"
SINK_COUNTED = "sink: lists answered that are neither in the streams nor among those counted, service killed or stopped"
SINK_JOIN = "sink: outcomes of its files that differ from plain loops over the streams, 100,000 events"

# As `results.row` takes a limit.
LIMITS: Mapping[str, Mapping[str, float]] = {
    JOIN: {"at_most": 0},
    DRIFT_QUIET: {"at_most": 0},
    **{drift_after(shift): {"at_most": 1.0} for shift in ("category mix", "new items", "event mix")},
    WHOLE_LIFT: {"above": 0.0},
    WHOLE_BETTER: {"below": SIGNIFICANT},
    WHOLE_EQUAL: {"at_least": SIGNIFICANT},
    WHOLE_FORETOLD: {"at_most": 0},
    WHOLE_OUTSIDE: {"at_most": 0},
    WHOLE_MADE: {"at_most": 0},
    SINK_LOST: {"at_most": 0},
    SINK_COUNTED: {"at_most": 0},
    SINK_JOIN: {"at_most": 0},
    KAFKA_ONCE: {"at_least": 100.0},
    # The sum is what is promised; its parts are for information.
    kafka_stage("all"): {"below": 100.0},
    **{kafka_stage(stage): {} for stage in ("broker", "store", "state", "list")},
    REENCODE: {},
    DRAWS: {"at_least": 0.01},
    LAW: {"at_most": 1e-4},
    COST: {"at_most": 5.0},
    COST_LATENCY: {"at_most": 5.0},
    COST_TAIL: {},
    forgetting("time"): {"at_most": 10.0},
    forgetting("command"): {"at_most": 10.0},
    forgetting("choice"): {},
    forgetting("new"): {"at_least": 98.0},
    forgetting("old"): {"at_least": 97.0},
    FALSE_ALARMS: {"at_most": 6.0},
    FALSE_MISMATCHES: {"at_most": 0.25},
    PROMOTED: {"at_most": 0},
    PROMOTED_FULL: {"at_least": 95.0},
    DROPS_FOUND: {"at_least": 80.0},
    CANARIES_BACK: {"at_least": 95.0},
    **{coverage(name, "least"): {"at_least": 92.0} for name in ESTIMATORS},
    **{coverage(name, "most"): {"at_most": 98.0} for name in ESTIMATORS},
}


def row(name: str, value: float, unit: str, command: str) -> results.Row:
    """Returns the row of a criterion, with the limit that was written down for it.

    Raises:
        KeyError: No such criterion was written down.
    """
    limit = LIMITS[name]
    return results.row(
        name,
        value,
        unit,
        command,
        at_most=limit.get("at_most"),
        at_least=limit.get("at_least"),
        below=limit.get("below"),
        above=limit.get("above"),
    )
