"""What is made of a flood's figures, on series and answers made by hand."""

from __future__ import annotations

import pytest

from loadtests.fleet import flood, flood_load
from loadtests.load.arrivals import Answer, Record

SERIES = "gpt4rec_stage_duration_seconds_bucket"


def buckets(stage: str, space: str, **counts: float) -> dict[str, float]:
    return {
        f'{SERIES}{{le="{edge.replace("_", ".")[1:]}",space="{space}",stage="{stage}"}}': count
        for edge, count in counts.items()
    }


def test_the_longest_run_is_that_of_the_flooded_space_and_of_the_block() -> None:
    before = buckets("decode", "flooded", _0_01=5.0, _0_02=5.0, _0_04=6.0) | buckets("decode", "default", _0_01=0.0)
    after = (
        buckets("decode", "flooded", _0_01=9.0, _0_02=11.0, _0_04=12.0)
        | buckets("encode", "flooded", _0_01=3.0, _0_02=3.0)
        | buckets("decode", "default", _0_01=0.0, _0_02=0.0, _0_04=9.0)
    )
    assert flood.longest_run_ms(before, after) == pytest.approx(10.0)
    assert flood.longest_run_ms(after, after) == 0.0


def test_a_block_counts_failures_and_lists_that_are_not_whole() -> None:
    answers = [Answer("l", due / 100, 0.001 * due, 200, "full" if due % 2 else "popular") for due in range(200)]
    answers.append(Answer("l", 0.0, None, "timed_out"))
    found = flood.Quiet.of(Record(0.0, answers), 1.0)
    assert found.failed == 1
    assert found.full_share == pytest.approx(0.5)
    assert found.p99_ms == pytest.approx(199.0)


def test_the_outcomes_of_a_flood_are_rates_and_shares() -> None:
    answers = [
        Answer("l", 0.0, 0.1, 200, "full"), Answer("l", 0.0, 0.1, 200, "popular"),
        Answer("l", 0.0, 0.1, 429), Answer("l", 0.0, None, "timed_out"),
    ]  # fmt: skip
    assert flood_load.outcomes(Record(0.0, answers), 2.0) == {
        "sent_a_second": 2.0, "lists_a_second": 1.0, "of_the_model_a_second": 0.5, "refused_share": 0.25,
        "server_errors": 0.0, "unanswered": 1.0,
    }  # fmt: skip


def test_the_criterion_compares_with_p99_alone_and_one_run_more() -> None:
    pair = {"alone_ms": 10.0, "flood_ms": 24.0, "longest_ms": 20.0, "failed": 2.0}
    assert flood.ratio(pair) == pytest.approx(0.8)
    assert flood.median([pair, {**pair, "flood_ms": 30.0}, {**pair, "flood_ms": 40.0}], "flood_ms") == 30.0
    assert flood.median([pair, pair], "failed") == 4.0
