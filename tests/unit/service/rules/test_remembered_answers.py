"""What is remembered of items has one bound, whatever callers ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.rules.answers import Answers

_MAX = 8_000
_ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "c" * 40]), st.lists(st.integers(0, 60), max_size=40)))


@given(_ASKED)
def test_every_item_is_answered_and_all_questions_together_stay_within_the_bound(
    asked: list[tuple[str, list[int]]],
) -> None:
    answers = Answers(_MAX)
    for key, items in asked:
        found = answers.of(key, items, lambda some, key=key: [((key,), (item,)) for item in some])  # type: ignore[misc]
        assert [found[item] for item in items] == [((key,), (item,)) for item in items]
        assert answers.size <= _MAX


def test_the_question_asked_least_recently_is_forgotten_first() -> None:
    answers, asked = Answers(_MAX), list[str]()

    def ask(key: str, n: int) -> None:
        def noted(items: list[int]) -> list[int]:
            asked.append(key)
            return items

        answers.of(key, range(n), noted)

    for key, n in [("old", 10), ("kept", 10), ("old", 10), ("large", 25), ("old", 10), ("kept", 10)]:
        ask(key, n)
    assert asked == ["old", "kept", "large", "kept"]


def test_a_long_question_counts_as_well() -> None:
    answers = Answers(_MAX)
    for _ in range(3):
        assert answers.of("x" * _MAX, [1, 2], lambda items: items) == {1: 1, 2: 2}
        assert answers.size == 0
