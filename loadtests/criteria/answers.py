"""Criterion 6: what an answer costs whose list was kept, relative to a list made anew.

Two services over the same artefact, one of which keeps nothing, have the same users with the same histories. They are
asked for the same lists in turns, request by request, so that slow moments of the machine and cold caches affect both.
Both have answered each question before, so that histories and states are in memory, and of the one service the lists.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtests.common import limit_criteria
from loadtests.criteria.client import Client
from loadtests.harness.bench import (
    MINUTE_MS,
    PATIENT,
    Bench,
    batches,
    event,
    load,
    median,
    real_histories,
    recommend_request,
    settle,
    warm,
)
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import read

USERS = 200
LEAST, LONGEST = 50, 100
# The last event was so long ago: a step of the gap to now ends after 45 minutes and after 64, and no run takes so long.
_AGO_MS = 48 * MINUTE_MS
_KEEPS = {"GPT4REC_ANSWERS_MIB": "16"}


def run(bench: Bench) -> None:
    """Records the cost of a hit, with the time of Valkey, and how many runs of the graphs there were during hits."""
    if bench.data is None:
        raise ValueError("criterion answers needs --data")
    histories = real_histories(read(bench.data), USERS, least=LEAST, longest=LONGEST)
    names = list(histories)
    with serve(bench.artifact, **PATIENT, **_KEEPS) as keeps, serve(bench.artifact, **PATIENT) as anew:
        # The same times for both: the encoder reads them.
        earlier = [one for name, items in histories.items() for one in _history(name, items)]
        for service in (keeps, anew):
            load(bench, service.url, "histories", list(batches(earlier)))
            warm(bench, service.url, names)
        rounds, counted = _rounds(bench, keeps, anew, names)
    requests = sum(one["requests"] for one in rounds)
    if counted["hits"] != requests:
        raise RuntimeError(f"{counted['hits']:.0f} of {requests:.0f} answers were kept")
    bench.limit(limit_criteria.HIT_COST, median(one["kept"] / one["anew"] for one in rounds))
    bench.limit(limit_criteria.HIT_RUNS, counted["runs"])
    medians = {part: round(median(one[part] for one in rounds), 1) for part in rounds[0]}
    bench.save("answers", {"unit": "µs of processor time a request", "users": USERS, "median": medians,
                           "rounds": rounds})  # fmt: skip


def _history(name: str, items: Sequence[str]) -> list[dict[str, Any]]:
    """A click on each item, a minute apart."""
    end = int(time.time() * 1000) - _AGO_MS
    return [event(name, item, end - (len(items) - n) * MINUTE_MS) for n, item in enumerate(items)]


def _rounds(
    bench: Bench, keeps: Served, anew: Served, names: Sequence[str]
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Measures processor microseconds a request of each service, an entry per round, and counts hits and runs.

    The first round is a warm-up and dropped, also from the counts.
    """
    requests, rounds = bench.some(600, 60), bench.some(11, 2)
    parts = {"kept": keeps, "anew": anew}
    processes = {name: [one, *([one.valkey] if one.valkey else [])] for name, one in parts.items()}
    asked = [recommend_request(names[n % len(names)]) for n in range(requests)]
    found, before = [], _counts(keeps)
    with bench.progress("rounds", rounds + 1) as advance:
        for number in range(rounds + 1):
            settle(*(one for pair in processes.values() for one in pair))
            if number == 1:
                before = _counts(keeps)
            began = {name: _cpu_s(pair) for name, pair in processes.items()}
            uvloop.run(_in_turns(keeps.url, anew.url, asked))
            settle(*(one for pair in processes.values() for one in pair))
            spent = {name: (_cpu_s(pair) - began[name]) / requests * 1e6 for name, pair in processes.items()}
            found.append({**spent, "requests": float(requests)})
            advance()
    after = _counts(keeps)
    return found[1:], {name: after[name] - before[name] for name in after}


def _cpu_s(processes: Sequence[Process]) -> float:
    return sum(process.cpu_s() for process in processes)


async def _in_turns(kept_url: str, anew_url: str, asked: Sequence[Arrival]) -> None:
    """Alternates the two services for every request; their lists must be the same."""
    kept, anew = await Client(kept_url).open(), await Client(anew_url).open()
    for request in asked:
        answers = [await client.send(request) for client in (kept, anew)]
        lists = [[item["item_id"] for item in answer["items"]] for answer in answers]
        if lists[0] != lists[1] or any(answer["rung"] != "full" for answer in answers):
            raise RuntimeError(f"two lists for one question: {answers}")
    kept.close()
    anew.close()


def _counts(service: Served) -> dict[str, float]:
    """Hits, and runs of the encoder and the decoder, since the service began."""
    text = httpx.get(f"{service.url}/metrics", timeout=10.0).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    hits = [s.value for s in samples if s.name == "gpt4rec_kept_lists_total" and s.labels["outcome"] == "hit"]
    runs = [s.value for s in samples if s.name == "gpt4rec_batch_size_count"]
    return {"hits": sum(hits), "runs": sum(runs)}
