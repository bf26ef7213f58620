"""Searches without an item: imported beside the log, kept with it, and merged into what networks read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from model.data.dataset import Dataset, sequences
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.data.query_histories import history_events, with_searches, without_searches
from model.data.together import together
from model.network.scoring import encoder_input
from model.training.batches import BatchPlan, cut
from service.artifact.features import EVENT_TYPES, ContextVocabulary, Vocabulary
from service.artifact.query_text import query_grams

LOG = """user,item,time,type,query
u1,a,2024-01-01 10:00:00,view,
u1,,2024-01-01 10:01:00,search,red shoes
u1,b,2024-01-01 10:01:00,view,
u2,,2024-01-01 11:00:00,search,lamp
u2,b,2024-01-01 11:05:00,view,
u1,,2024-01-01 12:00:00,search,"   "
u3,,2024-01-01 12:00:00,search,nobody bought
u1,c,2024-01-02 10:00:00,purchase,
u1,,2024-01-03 10:00:00,search,blue shoes
u2,c,2024-01-01 12:05:00,view,
u2,a,2024-01-01 12:06:00,view,
"""


def imported(folder: Path) -> Dataset:
    (folder / "log.csv").write_text(LOG, "utf-8")
    return import_dataset(ImportRequest(str(folder / "log.csv"), Format.CSV))


def vocabulary(dataset: Dataset, buckets: int) -> Vocabulary:
    return Vocabulary.of(sequences(dataset).item_ids, ContextVocabulary(), has_time=True, query_buckets=buckets)


def test_searches_are_kept_beside_the_log_and_in_the_folder_of_the_data_set(tmp_path: Path) -> None:
    dataset = imported(tmp_path)
    assert dataset.searches is not None
    assert dataset.searches["query"].to_list() == ["red shoes", "lamp", "nobody bought", "blue shoes"]
    assert dataset.events.height == 6 and "query" not in dataset.events.columns
    dataset.save(tmp_path / "data")
    again = Dataset.load(tmp_path / "data")
    assert again.searches is not None and again.searches.equals(dataset.searches)
    without = Dataset.of("x", dataset.events, dataset.items, dataset.users, has_time=True)
    assert without.fingerprint != dataset.fingerprint
    plain = sequences(dataset)
    assert plain.searches is not None and plain.searches.query == ("red shoes", "blue shoes", "lamp")
    assert plain.n_events == 6, "the log is the same with searches and without"


def test_two_data_sets_as_one_have_each_search_once_in_order_of_time(tmp_path: Path) -> None:
    dataset = imported(tmp_path)
    assert dataset.searches is not None
    earlier, later = (replace(dataset, searches=dataset.searches[rows]) for rows in (slice(0, 3), slice(2, 4)))
    for old, new in ((earlier, later), (later, earlier), (dataset, replace(dataset, searches=None))):
        both = together(old, new).searches
        assert both is not None and both.equals(dataset.searches)


def test_a_network_that_reads_queries_finds_them_where_they_happened_and_no_other_network_does(tmp_path: Path) -> None:
    dataset = imported(tmp_path)
    log = sequences(dataset)
    reads, plain = vocabulary(dataset, 100), vocabulary(dataset, 0)
    end = int(log.offsets[0]) + 2  # the question for c
    events = history_events(log, 0, end, reads)
    a, b, unknown = 0, 1, log.n_items
    assert events.item.tolist() == [a, unknown, b], "of one moment, the search comes first"
    assert events.query is not None and (events.query[1] == query_grams("red shoes", 100)).all()
    assert not events.query[[0, 2]].any()
    assert history_events(log, 0, end, plain).item.tolist() == [a, b]
    assert without_searches(events, unknown).item.tolist() == [a, b]
    whole = history_events(log, 0, int(log.offsets[1]), reads)
    assert [EVENT_TYPES[t] for t in whole.type].count("search") == 2
    started = encoder_input(events, 50, reads)
    assert started.query is not None and len(started.query) == len(started.item) == 4


def test_a_search_is_an_input_of_the_training_and_never_its_target(tmp_path: Path) -> None:
    log = sequences(imported(tmp_path))
    train = with_searches(log, log, 100)
    assert train.n_events == 8, "the search after the last event leads to nothing"
    assert with_searches(log, log, 0) is log
    [batch] = list(BatchPlan(cut(train, 16, 4), 1000, 0).batches(0, log.n_items + 1))
    assert batch.query is not None
    pairs = {(int(i), int(t)) for i, t in zip(batch.item.ravel(), batch.target.ravel(), strict=True) if t >= 0}
    assert (log.n_items, 1) in pairs, "b after the search"
    assert (0, 1) not in pairs, "a search lies between a and b, and knows more"
    assert int(batch.target.max()) < log.n_items
    assert np.array_equal(np.unique(batch.query[batch.item < log.n_items].numpy()), [0])


def test_a_log_without_times_has_no_place_for_searches(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,type,query\nu,a,view,\nu,,search,x\nu,b,view,\n", "utf-8")
    dataset = import_dataset(ImportRequest(str(tmp_path / "log.csv"), Format.CSV))
    assert dataset.searches is None
    assert dataset.report["dropped"]["searches that name no item"] == 1
