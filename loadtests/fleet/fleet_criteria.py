"""The criteria of `results/fleet.json`, written down before anything is measured. Pure.

A criterion is the name of a row. The commands record their rows with `row`, so a figure never chooses its own limit.
Each criterion says what is read for it, so that of two readings none is picked afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.common import results
from loadtests.common.limit_criteria import Criterion

SPACES_CROSSED = "spaces: requests that read or changed another space"
SPACES_FLOOD = "spaces: p99 under a flood on the other space / (p99 alone + one batch)"
FAILOVER_LOST = "fail-over: acknowledged events lost beyond what was promised"
FAILOVER_5XX = "fail-over: 5xx of /recommend"
FAILOVER_LATE = "fail-over: answers of /recommend later than their budget"
FAILOVER_ROWS = "fail-over: rows of the table"
ROLLING_RESTARTS = "rolling: errors in 20 rolling restarts"
ROLLING_RELEASES = "rolling: errors in 20 rolling releases"
TORCH_EQUAL = "torchrun: largest difference of the loss over 100 steps, one process and two"
TORCH_MEMORY = "torchrun: memory of the sharded table, a process of two / one process"
TORCH_RESUMED = "torchrun: runs that did not go on after kill -9 of one process"
SPARK_DIFFERENT = "spark: rows that differ from the one-machine path"
STREAMED_MEMORY = "logs: peak memory of the path that streams"
TRACES_MISSING = "traces: requests across two roles whose trace is not whole in the collector"
TRACES_ON = "traces: processor time of a /recommend at 1 % sampling / without"
TRACES_OFF = "traces: processor time of a /recommend switched off / commit before"
CAPACITY = "capacity: difference between prediction and run"

CRITERIA: Mapping[str, Criterion] = {
    SPACES_CROSSED: Criterion(
        reading="Requests over every route and two spaces, drawn at random, after which anything of the other space is "
        "different or was in the answer",
        unit="requests",
        at_most=0,
    ),
    SPACES_FLOOD: Criterion(
        reading="p99 of /recommend of the space that is not flooded ÷ (its p99 alone + the longest run of a batch of "
        "the other space); one process, two spaces, blocks alone and under the flood in turns; median of the pairs",
        at_most=1.0,
    ),
    FAILOVER_LOST: Criterion(
        reading="Events that were acknowledged and are in no history afterwards, beyond what the row's promise allows; "
        "all rows of the table together",
        unit="events",
        at_most=0,
    ),
    FAILOVER_5XX: Criterion(
        reading="Answers of /recommend with a status from 500, all rows", unit="answers", at_most=0
    ),
    FAILOVER_LATE: Criterion(
        reading="Answers of /recommend that took longer, at the client, than budget + 50 ms, worst row",
        unit="% of the answers",
        at_most=1.0,
    ),
    FAILOVER_ROWS: Criterion(reading="Fail-overs whose losses were counted", unit="rows", at_least=10),
    ROLLING_RESTARTS: Criterion(
        reading="Answers that are errors, connections that broke, and events that are missing or doubled, in 20 "
        "rolling restarts under load behind HAProxy and 20 behind nginx",
        unit="errors",
        at_most=0,
    ),
    ROLLING_RELEASES: Criterion(
        reading="The same in 20 rolling changes of release and model, old and new on one Redis",
        unit="errors",
        at_most=0,
    ),
    TORCH_EQUAL: Criterion(
        reading="Largest |loss of one process − loss of two| at the same global batch over the first 100 steps",
        unit="nats",
        at_most=1e-4,
    ),
    TORCH_MEMORY: Criterion(
        reading="Memory that the item table and its optimiser state add to a process of two ÷ what they add to one "
        "process that holds all of it",
        at_most=0.6,
    ),
    TORCH_RESUMED: Criterion(
        reading="Runs of two processes, one of them killed, that did not reach the weights of an undisturbed run after "
        "they were started again",
        unit="runs",
        at_most=0,
    ),
    SPARK_DIFFERENT: Criterion(
        reading="Rows of import, split, item-CF counts and transition counts that Spark and one machine write "
        "differently, same log",
        unit="rows",
        at_most=0,
    ),
    STREAMED_MEMORY: Criterion(
        reading="Peak resident memory of the path that streams, on the largest log that was run",
        unit="GiB",
        at_most=4.0,
    ),
    TRACES_MISSING: Criterion(
        reading="Of 200 requests that crossed two roles, those whose spans did not all reach a collector in another "
        "process under one trace id",
        unit="requests",
        at_most=0,
    ),
    TRACES_ON: Criterion(
        reading="Processor time of service and Valkey for a /recommend with traces at 1 % ÷ with traces off; two "
        "servers, blocks in turns, geometric mean of the pairs",
        at_most=1.03,
    ),
    TRACES_OFF: Criterion(
        reading="The same with traces off ÷ of the commit before there were traces",
        at_most=1.01,
    ),
    CAPACITY: Criterion(
        reading="|predicted − measured| ÷ measured of the highest rate with p99 ≤ 50 ms on the measuring machine, the "
        "prediction made from costs of single parts and written down before the run",
        unit="%",
        at_most=15.0,
    ),
}


def row(name: str, value: float, command: str) -> results.Row:
    """Returns the row of a criterion, with the unit and the limit that were written down for it.

    Raises:
        KeyError: If no such criterion was written down.
    """
    return CRITERIA[name].row(name, value, command)
