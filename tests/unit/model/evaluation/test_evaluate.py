"""The evaluation protocol, the rankers of the baselines, and the shape of the report."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import sparse

from model.data.dataset import Sequences
from model.data.split import Split, leave_one_out, time_split
from model.evaluation.evaluate import DEPTH, Histories, Ranker, evaluate, item_cf_ranker, popularity_ranker
from model.evaluation.rankers import EXCLUDED_AT_ONCE, batches_of
from model.evaluation.report import METRICS, Evaluation
from model.network.scoring import BATCH
from service.artifact.array_types import IntArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity

N_ITEMS = 40


def random_split(seed: int = 0, n_users: int = 30, longest: int = 12) -> Split:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest, n_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = int(offsets[-1])
    return leave_one_out(
        Sequences(
            user_ids=[f"u{i}" for i in range(n_users)],
            item_ids=[f"i{i}" for i in range(N_ITEMS)],
            offsets=offsets,
            item=np.concatenate([rng.permutation(N_ITEMS)[:length] for length in lengths]).astype(np.int64),
            type=rng.integers(0, 6, n),
            time_ms=np.arange(n, dtype=np.int64) * 1000,
        )
    )


def example_item_cf(seed: int = 0, n_neighbours: int = 6) -> ItemCF:
    rng = np.random.default_rng(seed)
    neighbour = (np.arange(N_ITEMS)[:, None] + 1 + np.arange(n_neighbours)) % N_ITEMS
    similarity = -np.sort(-rng.random(neighbour.shape, np.float32), axis=1)
    return ItemCF(neighbour.astype(np.int32), similarity, decay=0.5)


def systems_of(split: Split) -> dict[str, Ranker]:
    popularity = Popularity.fit(split.train.item, N_ITEMS)
    return {
        "item_cf": item_cf_ranker(example_item_cf(), popularity),
        "popular": popularity_ranker(popularity),
    }


def always(ranking: IntArray) -> Ranker:
    def rank(asked: Histories) -> IntArray:
        return np.tile(ranking, (len(asked), 1))

    return rank


def render(found: Evaluation) -> str:
    out = io.StringIO()
    console = Console(file=out, width=160, color_system=None)
    console.print(found.table(), found.comparison_table())
    return " ".join(out.getvalue().split())


@pytest.mark.parametrize("name", ["item_cf", "popular"])
@pytest.mark.parametrize("part", ["test", "valid"])
def test_no_item_of_the_history_in_any_list_and_every_list_is_full(name: str, part: str) -> None:
    split = random_split()
    holdout = split.test if part == "test" else split.valid
    lists = systems_of(split)[name](Histories(holdout.users, holdout.history_end, split.sequences))
    for i, row in enumerate(lists):
        history = split.sequences.item[split.history(holdout, i)]
        assert not set(row.tolist()) & set(history.tolist())
        assert (row >= 0).all() and len(set(row.tolist())) == DEPTH


def test_rankers_give_what_the_scorers_give_one_by_one() -> None:
    split = random_split(1)
    popularity = Popularity.fit(split.train.item, N_ITEMS)
    asked = Histories(split.test.users, split.test.history_end, split.sequences)
    lists = item_cf_ranker(example_item_cf(), popularity)(asked)
    for i in range(len(asked)):
        history = asked.items(i)
        scores = example_item_cf().scores(history)
        scores[history] = 0
        expected = [j for j in np.argsort(-scores, kind="stable") if scores[j] > 0]
        expected += [j for j in popularity.order if j not in expected and j not in history]
        assert lists[i].tolist() == expected[:DEPTH]


def test_list_is_padded_where_the_catalogue_is_smaller_than_the_list() -> None:
    split = leave_one_out(
        Sequences(
            ["u"],
            ["a", "b", "c", "d"],
            np.array([0, 3]),
            np.array([0, 1, 2]),
            np.zeros(3, int),
            np.zeros(3, int),
        )
    )
    popularity = Popularity.fit(split.train.item, 4)
    lists = popularity_ranker(popularity)(Histories(split.test.users, split.test.history_end, split.sequences))
    assert lists[0].tolist() == [2, 3, *[-1] * (DEPTH - 2)]


def test_history_shows_nothing_from_the_target_on() -> None:
    split = random_split(2)
    for holdout in (split.valid, split.test):
        asked = Histories(holdout.users, holdout.history_end, split.sequences)
        for i in range(len(asked)):
            events = asked.events(i)
            start = split.sequences.offsets[holdout.users[i]]
            assert events.item.tolist() == asked.items(i).tolist()
            assert events.item.tolist() == split.sequences.item[start : holdout.history_end[i]].tolist()
            assert len(events) == len(events.type) == len(events.time_ms) > 0
            assert asked.user_id(i) == split.sequences.user_ids[holdout.users[i]]
            assert int(holdout.target[i]) not in asked.items(i)  # users repeat nothing here


def test_figures_by_hand() -> None:
    # both users have seen 0 and 1; their targets are 2 and 3
    seqs = Sequences(
        ["u", "v"],
        [f"i{i}" for i in range(30)],
        np.array([0, 3, 6]),
        np.array([0, 1, 2, 1, 0, 3]),
        np.zeros(6, int),
        np.zeros(6, int),
    )
    ranking = np.concatenate([[9, 2, 8, 3], np.arange(10, 26)])
    found = evaluate({"ours": always(ranking), "other": always(np.arange(4, 24))}, leave_one_out(seqs))
    figures = found.systems["ours"].figures
    assert figures["recall@5"] == 1
    assert figures["mrr@5"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert figures["ndcg@10"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / 2)
    assert figures["coverage@20"] == pytest.approx(20 / 30)
    assert found.systems["other"].figures["recall@20"] == 0
    assert found.systems["ours"].per_user["mrr@10"].tolist() == [0.5, 0.25]


def test_json_has_the_published_shape() -> None:
    split = random_split(3)
    content = sparse.csr_array(np.eye(N_ITEMS))
    found = json.loads(json.dumps(evaluate(systems_of(split), split, content=content).to_json(), allow_nan=False))
    assert list(found)[:5] == ["split", "users", "protocol", "systems", "comparisons"]
    assert list(found)[5:] == ["history_kept", "repeat_share", "tied_share", "warnings"]
    assert (found["split"], found["users"]) == ("test", 30)
    assert list(found["systems"]) == ["item_cf", "popular"]
    assert all(list(figures) == list(METRICS) for figures in found["systems"].values())
    assert found["systems"]["popular"]["diversity@10"] == pytest.approx(1)
    assert {(c["system"], c["baseline"]) for c in found["comparisons"]} == {("item_cf", "popular")}
    assert {c["metric"] for c in found["comparisons"]} == {"recall@10", "ndcg@10", "mrr@10"}
    assert all(c["low"] <= c["difference"] <= c["high"] for c in found["comparisons"])


def test_first_system_is_compared_with_every_other() -> None:
    split = random_split(4)
    systems = {"best": always_right(split), **systems_of(split)}
    found = evaluate(systems, split, samples=500)
    against = {comparison.baseline for comparison in found.comparisons}
    assert against == {"item_cf", "popular"}
    assert all(c.better and c.interval.p_value < 0.05 for c in found.comparisons)


def always_right(split: Split) -> Ranker:
    answers = dict(zip(split.test.users.tolist(), split.test.target.tolist(), strict=True))

    def rank(asked: Histories) -> IntArray:
        lists = np.full((len(asked), DEPTH), -1, np.int64)
        lists[:, 0] = [answers[int(user)] for user in asked.users]
        return lists

    return rank


def test_tables_show_every_metric_and_every_comparison() -> None:
    split = random_split(5)
    text = render(evaluate(systems_of(split), split))
    for expected in ("item_cf", "popular", "recall@10", "coverage@20", "items of the history removed", "…"):
        assert expected in text
    assert "diversity" not in text


def test_batches_do_not_change_the_figures_and_progress_is_told() -> None:
    split = random_split(6)
    told: list[tuple[str, int, int]] = []
    small = evaluate(systems_of(split), split, batch=7, progress=lambda *state: told.append(state))
    assert small.to_json() == evaluate(systems_of(split), split).to_json()
    assert told[-1] == ("popular", 30, 30)


def test_time_split_is_named_in_the_protocol() -> None:
    seqs = random_split(7).sequences
    split = time_split(seqs, int(seqs.time_ms[60]), int(seqs.time_ms[120]))
    assert "split by time" in evaluate(systems_of(split), split, "valid").protocol


def test_evaluation_without_users_is_refused() -> None:
    split = leave_one_out(
        Sequences(["u"], ["a"], np.array([0, 1]), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))
    )
    with pytest.raises(ValueError, match="no user"):
        evaluate({}, split)


GOOD = np.full(DEPTH, -1, np.int64)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (np.zeros(3, np.int64), "not integers"),
        (np.concatenate([[N_ITEMS], GOOD[1:]]), "outside the catalogue"),
        (np.concatenate([[-2], GOOD[1:]]), "outside the catalogue"),
        (np.concatenate([[-1, 5], GOOD[2:]]), "hole"),
        (np.concatenate([[5, 5], GOOD[2:]]), "twice"),
        (np.arange(DEPTH), "own history"),
    ],
)
def test_list_that_breaks_the_protocol_is_refused(broken: IntArray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        evaluate({"broken": always(broken)}, random_split(8))


def test_history_may_be_kept_where_repeats_are_the_point() -> None:
    split = random_split(9)
    popularity = Popularity.fit(split.train.item, N_ITEMS)
    found = evaluate({"popular": popularity_ranker(popularity)}, split, exclude_history=False)
    assert (found.systems["popular"].lists == popularity.order[:DEPTH]).all()
    assert "kept" in found.protocol


def test_lists_with_many_exclusions_are_decoded_few_at_a_time() -> None:
    lengths = [5, EXCLUDED_AT_ONCE // 3, 10 * EXCLUDED_AT_ONCE, *[7] * 200, EXCLUDED_AT_ONCE // 3]
    batches = list(batches_of(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) <= BATCH and (len(batch) == 1 or len(batch) * longest <= EXCLUDED_AT_ONCE)
    assert len(batches) == 6
