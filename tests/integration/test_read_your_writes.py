"""Invariant 5: what /events acknowledged is in the next list, whichever replica is asked."""

from __future__ import annotations

import random
from pathlib import Path

import httpx

from tests.support.processes import PATIENT, Serve, T, event, ids, items_of, recommend, serve
from tests.support.valkey import TcpValkey

TRIALS = 240
USERS = 12
DAY_MS = 86_400_000
GREEDY = {"strategy": "greedy"}


def told(service: Serve, events: list[tuple[int, str]]) -> list[str]:
    """The list for a history that is told in the request: what the stored one must give."""
    inline = [{"item_id": item, "type": "click", "timestamp": time} for time, item in events]
    return ids(recommend(service, events=inline, decoding=GREEDY, k=5))


def test_acknowledged_event_is_seen_by_the_next_recommend(random_artifact: Path, tmp_path: Path) -> None:
    """Events go to one replica or the other, in any order of time; the other is asked at once. Its list must be the one
    for the whole history, told inline: the model has seen the event, wherever the stored state was made."""
    items = items_of(random_artifact)
    random_ = random.Random(0)
    histories: dict[str, list[tuple[int, str]]] = {f"u{n}": [] for n in range(USERS)}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    settings = {**PATIENT, "GPT4REC_HISTORY_CAP": "1000"}
    with (
        TcpValkey(tmp_path / "redis") as redis,
        serve(tmp_path / "one", "--artifact", str(random_artifact), "--redis", redis.url, **settings) as one,
        serve(tmp_path / "other", "--artifact", str(random_artifact), "--redis", redis.url, **settings) as other,
    ):
        for trial in range(TRIALS):
            writer, reader = random_.sample([one, other], 2)
            user, item = random_.choice(list(histories)), random_.choice(items)
            # Now and then an event comes late, before others that a state has already seen.
            time_ms = T + trial * DAY_MS - (random_.randrange(4) == 0) * random_.randrange(20) * DAY_MS + trial
            written = writer.client.post("/events", json={"events": [event(user, item, time_ms)]})
            assert written.json()["accepted"] == 1
            answer = recommend(reader, user_id=user, decoding=GREEDY, k=5)
            histories[user] = sorted([*histories[user], (time_ms, item)])
            assert (answer["rung"], answer["source"]) == ("full", "gpt4rec"), (trial, answer)
            assert item not in ids(answer)
            assert ids(answer) == told(writer, histories[user]), trial
        states = httpx.get(f"{reader.client.base_url}/metrics", timeout=30.0).text
    assert 'gpt4rec_state_cache_total{level="state",outcome="extended"}' in states
    assert 'gpt4rec_state_cache_total{level="state",outcome="rebuilt"}' in states
