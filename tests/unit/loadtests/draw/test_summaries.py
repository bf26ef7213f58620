"""The summaries at the top of docs/performance.md and docs/quality.md: every figure in them is a recorded one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loadtests.common import limit_criteria
from loadtests.draw import engine_tables, performance_summary, quality_summary
from loadtests.draw.tables import NOT_YET, limits


def criterion(name: str, value: float, unit: str = "ratio", **more: Any) -> dict[str, Any]:
    return {"criterion": name, "value": value, "unit": unit, "limit": None, "holds": None, **more}


def means(**recall: float) -> dict[str, Any]:
    return {system: {"recall@10": {"mean": value}, "ndcg@10": {"mean": value / 2}} for system, value in recall.items()}


RANKING = {
    "parts": {
        "Beauty": {"means": means(blend=0.12, item_cf=0.10)},
        "office": {"means": means(blend=0.09, item_cf=0.10)},
        "Beauty, validation_users=0": {"means": means(blend=0.06, item_cf=0.05)},
    }
}


def test_only_criteria_that_were_measured_are_headlines() -> None:
    text = performance_summary.figures([criterion("1 cpu", 1.4, "×", limit="≤ 1.5", holds=True)], {})
    assert len(text.splitlines()) == 3
    assert text.endswith("| 1.4 × | ≤ 1.5 | yes |")


def test_a_peer_that_is_faster_in_a_closed_loop_is_named() -> None:
    systems = [
        {"name": "gpt4rec", "variant": "workers 2", "wrk": {"rps": 1000.0}},
        {"name": "fastapi", "variant": "decode only", "wrk": {"rps": 1400.0}},
        {"name": "litserve", "variant": "decode only", "wrk": None},
    ]
    rows = [criterion("2 rps / HF generate", 63.1)]
    assert "faster there: fastapi, decode only (1,400)." in performance_summary.peers(
        rows, {"peers": {"systems": systems}}
    )
    assert "no peer is faster" in performance_summary.peers(rows, {"peers": {"systems": systems[:1]}})


def test_a_criterion_that_does_not_hold_is_listed_as_missed() -> None:
    rows = [
        criterion("fine", 1.0, limit="≤ 1.5", holds=True),
        criterion("torch", 9.19, limit="≥ 50", holds=False),
        criterion("unlimited", 3.0),
    ]
    assert limits(rows) == "1 of 2 criteria with a limit hold. Missed:\n\n- torch: 9.19 ratio, limit ≥ 50."
    assert limits(rows[:1]) == "All 1 criteria with a limit hold."
    assert limits(rows[2:]) == ""


def test_the_ranking_summary_shows_what_was_before_the_ranker_only_where_nothing_newer_is() -> None:
    text = quality_summary.ranking([], {"quality_ranking": RANKING})
    assert "| Beauty | sampled | 0.1200 | 0.1000 | 1.20 | 0.0600 | 0.0500 | 1.20 |" in text
    assert "| Beauty | strict, before the ranker | 0.0600 |" in text
    newer = {"parts": {**RANKING["parts"], "strict Beauty": {"means": means(blend=0.11, item_cf=0.05)}}}
    text = quality_summary.ranking([], {"quality_ranking": newer})
    assert "before the ranker" not in text
    assert text.index("| Beauty | strict | 0.1100 |") < text.index("| Beauty | sampled |")


def test_the_peer_is_compared_on_its_own_split() -> None:
    runs = {
        held_out: {"data": "Beauty", "held_out": held_out, "factors": 64, "valid_ndcg@10": 0.1,
                   "test": {"recall@10": recall, "ndcg@10": recall / 2}}
        for held_out, recall in (("sample", 0.1), ("everybody", 0.05))
    }  # fmt: skip
    text = quality_summary.peers([], {"quality_ranking": RANKING, "quality_peers": {"runs": runs}})
    assert "| Beauty, sampled | 0.1200 | 0.1000 | 1.20 |" in text
    assert "| Beauty, strict, before the ranker | 0.0600 | 0.0500 | 1.20 |" in text


def test_a_baseline_that_is_ahead_is_listed_as_missed() -> None:
    text = quality_summary.missed([], {"quality_ranking": RANKING})
    assert "*office, sampled*: tuned item-CF has the higher recall@10, 0.1000 against 0.0900." in text
    assert "Beauty" not in text


def test_without_figures_every_part_says_so() -> None:
    # Criteria and published figures are there before anything is measured.
    beforehand = {"strict_criteria", "published"}
    of_quality = [draw for name, draw in quality_summary.SUMMARY.items() if name not in {*beforehand, "summary_missed"}]
    of_performance = [draw for name, draw in performance_summary.SUMMARY.items() if name != "summary_limits"]
    assert {draw([], {}) for draw in (*of_performance, *of_quality)} == {NOT_YET}


def test_a_limit_that_nobody_measured_is_shown_as_not_measured() -> None:
    measured = limit_criteria.row(limit_criteria.CONSTRAINT, 1.2, "python -m …")
    text = performance_summary.at_the_limit([asdict(measured), criterion("1 cpu", 1.4, "×")], {})
    assert text.count("*not measured*") == len(limit_criteria.CRITERIA) - 1
    assert "| 1.2 × | ≤ 1.25 | – | yes |" in text
    assert "| *not measured* | ≤ 0.7 | ≤ 0.6 | – |" in text


def test_each_figure_of_before_stands_beside_the_one_of_now() -> None:
    old = {"date": "2026-11-23", "limit": None, "holds": None}
    before = {"rows": [criterion("1 cpu", 1.4, "×", **old), criterion("5 redis log", 5312.0, "bytes", **old)]}
    now = [criterion("1 cpu", 1.15, "×", date="2026-11-30"), criterion("5 redis log", 5312.0, "bytes", **old)]
    text = performance_summary.changed(now, {"engine_before": before})
    assert "| 1 cpu | 1.4 × | 1.15 × |" in text
    assert "| 5 redis log | 5,312 bytes | *not measured again* |" in text


def test_the_sections_on_the_limit_show_what_was_measured() -> None:
    def pair(after: float, before: float) -> dict[str, Any]:
        return {"after": {"cpu_us": after}, "before": {"cpu_us": before}}

    cpu = {"ratio": 0.61, "interval": [0.59, 0.63], "pairs": [pair(60.0, 100.0), pair(62.0, 100.0)]}
    rates = {"ratio": 1.5, "rounds": [{"before": {"rate": 1000.0}, "after": {"rate": 1500.0}}]}
    both = {"cpu": cpu, "rates": rates, "places": {"beam 5": {"places": 600, "same": 599}}, "date": "2026-11-30"}
    text = engine_tables.before_after(both)
    assert "After ÷ before: 0.61, 95 % interval 0.59 to 0.63, 2 pairs of blocks." in text
    assert "| round 1 | 1,000 | 1,500 |" in text and "| beam 5 | 600 | 599 |" in text
    assert engine_tables.before_after({"cpu": cpu}).count("lists/s") == 0
    in_batch = {"pairs": [{"batch": {"cpu_us": 300.0}, "single": {"cpu_us": 1000.0}}], "size": 100}
    assert "| in a batch of 100 | 300 |" in engine_tables.batches({**in_batch, "ratio": 0.3, "interval": [0.29, 0.31]})
    check = {"items": 300, "dtype": "float16", "what": "parity", "found": "99 %", "holds": True}
    timed = {"items": 300, "dtype": "float16", "graphs": True, "batch": 8, "p50_ms": 1.5, "p99_ms": 2.0,
             "lists_per_s": 5333.0}  # fmt: skip
    card = {"card": "A card", "onnxruntime_gpu": "1.31.1", "checks": [check], "times": [timed], "left_out": ["more"]}
    assert "| 300 items, float16 | yes | 8 | 1.5 | 2 | 5,333 |" in engine_tables.gpu(card)
    assert "Left out, for want of time: more." in engine_tables.gpu(card)
