"""Requests across two roles, as a collector in another process sees them.

    python -m loadtests.fleet.traces --artifact artifacts/latest [--requests 200] [--record]

One process answers, one encodes, and a Redis lies between them. Each request brings the event of another user, and the
`traceparent` of a caller. Its trace is whole when the collector has the caller's id on all of it, and each span hangs
under the right one: the request and its write of the process that answers, and below the request the work of the
process that encodes, with the wait for the encoder and its run.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.harness.bench import PATIENT
from loadtests.harness.collector import Collected, collector
from loadtests.harness.served_process import Served, serve
from loadtests.harness.valkey import TcpValkey
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command

COMMAND = "python -m loadtests.fleet.traces --artifact ARTIFACT --record"
ROLES = ("answer", "encode")
# The spans of a whole trace, below which span, and of which role.
WHOLE: Mapping[str, tuple[str, str]] = {
    "POST /events": ("", "answer"),
    "store": ("POST /events", "answer"),
    "encode behind events": ("POST /events", "encode"),
    "queue": ("encode behind events", "encode"),
    "encode": ("encode behind events", "encode"),
}
_WITHIN_S = 60.0
_SPAN_ID = "b7ad6b7169203331"

Span = Mapping[str, Any]


def fault(spans: Sequence[Span]) -> str | None:
    """Returns what is wrong with a trace, None if it is whole."""
    by_id = {span["span_id"]: span["name"] for span in spans}
    named = {span["name"]: span for span in spans}
    if missing := WHOLE.keys() - named.keys():
        return f"without {', '.join(sorted(missing))}"
    for name, (parent, role) in WHOLE.items():
        span = named[name]
        if span["service"] != service_of(role):
            return f"{name} comes from {span['service']}"
        if (by_id.get(span["parent_id"]) if parent else span["parent_id"]) != (parent or _SPAN_ID):
            return f"{name} hangs under something else than {parent or 'the caller'}"
    if len(spans) != len(WHOLE):
        return f"{len(spans)} spans"
    return None


def service_of(role: str) -> str:
    """Returns under which name a role sends its spans."""
    return f"gpt4rec-{role}"


@contextmanager
def both_roles(artifact: Path, collected: Collected, folder: Path) -> Iterator[Served]:
    """Serves the two roles until the body ends; yields the one that answers."""
    valkey = TcpValkey(folder / "valkey", fsync="everysec")
    valkey.start()
    with ExitStack() as stack:
        stack.callback(valkey.kill9)
        served = [
            stack.enter_context(
                serve(
                    artifact, "--role", role, "--redis", valkey.url, "--data-dir", str(folder / role), **PATIENT,
                    GPT4REC_TRACES=collected.url, GPT4REC_TRACES_SHARE="0", OTEL_SERVICE_NAME=service_of(role),
                    OTEL_BSP_SCHEDULE_DELAY="200",
                )
            )
            for role in reversed(ROLES)
        ]  # fmt: skip
        yield served[-1]


def send(url: str, item: str, requests: int) -> list[str]:
    """Sends events, each of a user and with a trace of its own; returns the ids of the traces."""
    sent = []
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        for number in range(requests):
            trace_id = secrets.token_hex(16)
            now_ms = int(1000 * time.time())
            event = {"user_id": f"traced{number}", "item_id": item, "type": "view", "timestamp": now_ms}
            headers = {"traceparent": f"00-{trace_id}-{_SPAN_ID}-01"}
            client.post("/events", json={"events": [event]}, headers=headers).raise_for_status()
            sent.append(trace_id)
    return sent


def faults(collected: Collected, sent: Sequence[str], within_s: float = _WITHIN_S) -> dict[str, str]:
    """Waits for the traces; returns what is wrong with those that are not whole in time, by their ids."""
    until = time.monotonic() + within_s
    while True:
        traces = defaultdict(list)
        for span in collected.spans():
            traces[span["trace_id"]].append(span)
        found = {one: wrong for one in sent if (wrong := fault(traces[one])) is not None}
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    requests: Annotated[int, typer.Option(min=1, help="Requests.")] = 200,
    record: Annotated[bool, typer.Option("--record", help="Write the row into loadtests/results/fleet.json.")] = False,
) -> None:
    """Send requests across two roles, and look for their traces in a collector."""
    item = str(Artifact.open(artifact).catalogue.item_ids[0])
    with tempfile.TemporaryDirectory(prefix="gpt4rec-traces-") as name:
        folder = Path(name)
        with collector(folder / "collector") as collected:
            with both_roles(artifact, collected, folder) as served:
                sent = send(served.url, item, requests)
                found = faults(collected, sent)
            total = len(collected.spans())
    for trace_id, wrong in found.items():
        typer.echo(f"{trace_id}: {wrong}")
    typer.echo(f"{len(sent) - len(found)} of {len(sent)} traces are whole; {total} spans, by {collected.name}")
    if record:
        if requests < 200:
            raise typer.BadParameter("the criterion asks for 200 requests", param_hint="--requests")
        results.record(results.FLEET, fleet_criteria.row(fleet_criteria.TRACES_MISSING, len(found), COMMAND))
    if found:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
