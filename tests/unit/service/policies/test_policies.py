"""Segments and decoding policies: pure, validated, first match wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.common.errors import PolicyError
from service.common.request_errors import UnknownSegment
from service.policies import policies
from service.policies.segments import Facts, facts
from service.settings.service_settings import DEFAULT_POLICIES


def parsed(*segments: dict[str, Any], default: str = "rest") -> policies.Policies:
    rest = {"name": "rest", "decoding": {"strategy": "greedy"}}
    return policies.parse({"segments": [*segments, rest], "default": default})


def segment(name: str, when: Any) -> dict[str, Any]:
    return {"name": name, "when": when, "decoding": {"strategy": "beam"}}


def some(events: int = 10, **known: float) -> Facts:
    base = {"recency_s": None, "category_entropy": None, "repeat_share": None}
    return Facts(events, **{**base, **known})


def test_the_first_segment_whose_rule_holds_is_taken() -> None:
    book = parsed(segment("a", {"min_events": 5}), segment("b", {"min_events": 3}))
    assert [book.choose(some(n)).name for n in (10, 4, 1)] == ["a", "b", "rest"]


def test_all_bounds_of_a_rule_must_hold_and_any_rule_of_a_list() -> None:
    both = parsed(segment("a", {"min_events": 5, "max_repeat_share": 0.1}))
    either = parsed(segment("a", [{"min_events": 5}, {"max_repeat_share": 0.1}]))
    assert both.choose(some(10, repeat_share=0.5)).name == "rest"
    assert either.choose(some(10, repeat_share=0.5)).name == "a"


def test_a_bound_on_an_unknown_fact_does_not_hold() -> None:
    book = parsed(segment("a", {"max_recency_s": 1e9}), segment("b", {"min_recency_s": 0}))
    assert book.choose(some()).name == "rest"


def test_a_segment_without_a_rule_is_only_named() -> None:
    book = parsed({"name": "vip", "decoding": {"strategy": "beam"}})
    assert book.choose(some()).name == "rest"
    assert book.named("vip").decoding.build().beam_width == 5
    with pytest.raises(UnknownSegment, match="vip"):
        book.named("nobody")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"segments": [], "default": "x"}, "segments"),
        ({"segments": [segment("a", {"min_evnts": 1})], "default": "a"}, r"segments\[0\].when.*min_evnts"),
        ({"segments": [segment("A b", None)], "default": "a"}, r"segments\[0\].name"),
        (
            {"segments": [{"name": "a", "decoding": {"strategy": "beam", "topp": 1}}], "default": "a"},
            "topp",
        ),
        ({"segments": [segment("a", {"min_events": 3, "max_events": 2})], "default": "a"}, "above"),
        ({"segments": [segment("a", {}), segment("a", {})], "default": "a"}, "defined twice"),
        ({"segments": [segment("a", {})], "default": "b"}, "unknown segment b"),
        ([], "file"),
    ],
)
def test_a_bad_file_is_refused_and_the_place_named(data: Any, place: str) -> None:
    with pytest.raises(PolicyError, match=place):
        policies.parse(data)


def test_a_file_that_is_absent_or_no_yaml_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "p.yaml"
    broken.write_text("segments: [")
    for path in (broken, tmp_path / "absent.yaml"):
        with pytest.raises(PolicyError, match=path.name):
            policies.load(path)


def test_the_defaults_are_those_that_validation_chose() -> None:
    book = policies.load(DEFAULT_POLICIES)
    decodings = {name: book.named(name).decoding.build() for name in book.names}
    assert (decodings["explorer"].strategy, decodings["explorer"].temperature) == ("temperature", 0.5)
    assert (decodings["conservative"].strategy, decodings["conservative"].beam_width) == ("beam", 5)
    assert (decodings["new"].strategy, decodings["new"].temperature) == ("temperature", 0.7)
    assert decodings["active"].strategy == "greedy"
    assert book.choose(some(0)).name == "new"
    assert book.choose(some(20, repeat_share=0.5, category_entropy=0.9)).name == "conservative"
    assert book.choose(some(20, repeat_share=0.0, category_entropy=0.85)).name == "explorer"
    assert book.choose(some(20, repeat_share=0.1, category_entropy=0.7)).name == "active"
    assert book.choose(some(20, repeat_share=0.0, category_entropy=0.5)).name == "conservative"


def test_facts_of_a_history() -> None:
    known = facts(["a", "b", "a", "c"], [("x",), ("y",), ("x",), ("y",)], 5_000, 65_000, 2)
    assert known == Facts(events=4, recency_s=60.0, category_entropy=1.0, repeat_share=0.25)
    assert facts([], [], None, 0, 10) == Facts(0, None, None, None)
    assert facts(["a", "a"], [("x",), ("x",)], 0, 0, 9).category_entropy == 0.0
    assert facts(["a", "b"], [("x", "y"), ("z", "w")], 0, 0, 4).category_entropy == pytest.approx(1.0)
    assert facts(["a"], [("x", "y")], 0, 0, 4).category_entropy is None
    assert facts(["a"], [()], 10, 5, 9) == Facts(1, 0.0, None, 0.0)


@given(st.lists(st.sampled_from("abc"), max_size=120), st.integers(1, 5))
def test_shares_lie_between_0_and_1(categories: list[str], n_categories: int) -> None:
    known = facts(categories, categories, 0, 0, n_categories)
    for share in (known.category_entropy, known.repeat_share):
        assert share is None or 0.0 <= share <= 1.0
