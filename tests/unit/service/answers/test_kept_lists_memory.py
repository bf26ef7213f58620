"""What is kept of lists: within its bytes, the most recently used, and nothing of subjects that are gone."""

from __future__ import annotations

import numpy as np

from service.answers.kept_lists import KeptList, KeptLists, Question
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.metrics.service_metrics import Metrics, value_of
from service.store.records import Subject

ANN, BEN = Subject("user", "ann"), Subject("user", "ben")


def listing(*items: int) -> RecommendationList:
    return RecommendationList(np.array(items, np.int64), np.ones(len(items), np.float32), "gpt4rec")


def of(subject: Subject | None, key: object, log: str = "v1") -> Question:
    return Question(subject, log if subject else "", key)


def items_of(kept: KeptLists, question: Question) -> list[int] | None:
    found = kept.get(question)
    return None if found is None else found.listing.items.tolist()


def test_the_least_recently_used_lists_go_first_and_the_bytes_stay_within_their_bound() -> None:
    size = KeptList(listing(1, 2), 0.1).nbytes
    metrics = Metrics()
    kept = KeptLists(3 * size, metrics)
    for n in range(3):
        kept.put(of(ANN, n), KeptList(listing(n, n), 0.1))
    assert items_of(kept, of(ANN, 0)) == [0, 0]
    kept.put(of(BEN, 3), KeptList(listing(3, 3), 0.1))
    assert items_of(kept, of(ANN, 1)) is None
    assert (len(kept), kept.nbytes, value_of(metrics.kept_list_bytes)) == (3, 3 * size, 3 * size)
    kept.put(of(ANN, 0), KeptList(listing(5, 5), 0.1))
    assert (len(kept), items_of(kept, of(ANN, 0))) == (3, [5, 5])
    kept.put(of(ANN, "large"), KeptList(listing(*range(2000)), 0.1))
    assert (len(kept), kept.of(ANN), kept.of(BEN)) == (3, 2, 1), "what does not fit drives nothing out"
    kept.clear()
    assert (len(kept), kept.nbytes, kept.of(ANN), value_of(metrics.kept_list_bytes)) == (0, 0, 0, 0)


def test_without_memory_nothing_is_kept() -> None:
    kept = KeptLists(0, Metrics())
    kept.put(of(None, 1), KeptList(listing(1), 0.1))
    assert (kept.on, len(kept)) == (False, 0)


def test_lists_of_a_subject_go_with_its_erasure_and_with_its_next_log() -> None:
    kept = KeptLists(10**6, Metrics())
    for question in (of(ANN, 1), of(ANN, 2), of(BEN, 1), of(None, 1)):
        kept.put(question, KeptList(listing(7), 0.1))
    kept.forget(ANN)
    assert (kept.of(ANN), kept.of(BEN), len(kept)) == (0, 1, 2)
    assert items_of(kept, of(BEN, 2, "v2")) is None
    assert (kept.of(BEN), len(kept)) == (0, 1), "what was made of the log before is of no use any more"
    kept.put(of(ANN, 1, "v1"), KeptList(listing(7), 0.1))
    kept.put(of(BEN, 1, "v3"), KeptList(listing(7), 0.1))
    kept.keep_only({ANN: "v2", BEN: "v3"})
    assert (kept.of(ANN), kept.of(BEN), len(kept)) == (0, 1, 2), "new visitors keep theirs"


def test_a_kept_list_holds_no_larger_array_in_memory() -> None:
    batch = np.arange(10_000)
    scores = np.ones(10_000, np.float32)
    draw = Draw(scores[:2], batch[:4], scores[:4], None)
    kept = KeptLists(10**6, Metrics())
    kept.put(of(None, 1), KeptList(RecommendationList(batch[:2], scores[:2], "gpt4rec", draw=draw), 0.1))
    found = kept.get(of(None, 1))
    assert found is not None and found.listing.draw is not None
    arrays = (found.listing.items, found.listing.scores, found.listing.draw.items, found.listing.draw.scores)
    assert all(array.base is None for array in arrays) and found.listing.draw.items.tolist() == [0, 1, 2, 3]
    assert found.nbytes < 4_000
