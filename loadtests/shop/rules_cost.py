"""What five rules cost a /recommend: the same requests to one service, with its rules and without, in turn.

    python -m loadtests.shop.rules_cost --artifact DIR [--rounds 3] [--record]

The policies are the default ones with a rule of each kind: a pin, a boost, at most three items of each category, at
least two of another category, and two categories apart. Requests without rules say `policy_rules: false`. Blocks of
requests alternate, so that whatever else happens on the machine meets both; each round starts the service anew.
Processor time is that of the service and its Redis together, with the work behind the answers.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from loadtests.common import results
from loadtests.harness.bench import PATIENT, batches
from loadtests.harness.paired_blocks import USERS, Pair, block, events, more_of
from loadtests.harness.served_process import serve
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import RECOMMEND, send_beforehand
from loadtests.shop import list_criteria as criteria
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.settings.service_settings import DEFAULT_POLICIES

_COMMAND = "python -m loadtests.shop.rules_cost --artifact ARTIFACT --record"


def rules(artifact: Path) -> list[dict[str, Any]]:
    """Returns a rule of each kind that has something to do in the catalogue of an artefact."""
    parts = Artifact.open(artifact)
    popular = parts.popularity.order[:400].tolist()
    counts = Counter(value for item in popular for value in parts.catalogue.categories(item))
    names = [name for name, _ in counts.most_common()]
    first, second, third, last = names[0], names[1 % len(names)], names[2 % len(names)], names[-1]
    return [
        {"name": "pinned", "kind": "pin", "item": parts.catalogue.item_ids[popular[50]], "position": 3},
        {"name": "raised", "kind": "boost", "where": {"category": [second]}, "times": 1.5},
        {"name": "variety", "kind": "at_most", "each": "category", "n": 3},
        {"name": "some", "kind": "at_least", "where": {"category": [third]}, "n": 2},
        {"name": "apart", "kind": "apart", "groups": [{"category": [last]}, {"category": [first]}]},
    ]


def measure(artifact: Path, rounds: int, pairs: int, requests: int, at_once: int) -> Iterator[Pair]:
    """Yields pairs of blocks, with rules and without.

    Args:
        artifact: What is served.
        rounds: How often the service is started.
        pairs: Pairs of blocks in each round.
        requests: Requests of a block.
        at_once: How many are in flight.
    """
    policies = yaml.safe_load(DEFAULT_POLICIES.read_text(encoding="utf-8")) | {"rules": rules(artifact)}
    ruled, plain = (list(islice(cycle(_bodies(hold=hold)), requests)) for hold in (True, False))
    with tempfile.TemporaryDirectory(prefix="gpt4rec-rules-") as folder:
        file = Path(folder) / "policies.yaml"
        file.write_text(yaml.safe_dump(policies), encoding="utf-8")
        for number in range(rounds):
            with serve(artifact, **PATIENT, GPT4REC_POLICIES=str(file)) as served:
                send_beforehand(served.url, list(batches(events(artifact))))
                for bodies in (ruled, plain):
                    block(served, bodies, at_once)  # caches are filled, and nothing is measured
                for pair in range(pairs):
                    first = (number + pair) % 2
                    found = {which: block(served, (plain, ruled)[which], at_once) for which in (first, 1 - first)}
                    yield found[1], found[0]


def _bodies(*, hold: bool) -> Sequence[Arrival]:
    said = [{"user_id": f"u{user}", "k": 10, "policy_rules": hold} for user in range(USERS)]
    return [Arrival(0.0, RECOMMEND, orjson.dumps(body)) for body in said]


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often the service is started.")] = 3,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks in a round.")] = 8,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a block.")] = 1000,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 2,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/shop.json.")] = False,
) -> None:
    """Measure what five rules cost a /recommend."""
    found: list[Pair] = []
    for ruled, plain in measure(artifact, rounds, pairs, requests, at_once):
        found.append((ruled, plain))
        typer.echo(
            f"with {ruled.cpu_us:.0f} µs (median {ruled.median_ms:.2f} ms), "
            f"without {plain.cpu_us:.0f} µs (median {plain.median_ms:.2f} ms)"
        )
    for criterion, figure in ((criteria.COST, "cpu_us"), (criteria.COST_LATENCY, "median_ms")):
        times, low, high = (1.0 + value / 100.0 for value in more_of(found, figure))
        typer.echo(f"{criterion}: {times:.3f} (95 % interval {low:.3f} to {high:.3f}), {len(found)} pairs")
        if record:
            results.record(results.SHOP, criteria.row(criterion, times, "×", _COMMAND))


if __name__ == "__main__":
    run_command(main)
