"""Event types: what a model does not know is "other", and a learned scale weighs the items by their type."""

from __future__ import annotations

import numpy as np

from export.features import EVENT_TYPES, START_TYPE, ContextVocabulary, EventArrays, Vocabulary, type_index
from model.ranking import recent

OLDER = START_TYPE - 1


def vocabulary(n_types: int) -> Vocabulary:
    return Vocabulary.of(["a", "b"], ContextVocabulary(), has_time=True, n_types=n_types)


def test_types_are_only_ever_appended() -> None:
    assert EVENT_TYPES == ("other", "view", "click", "cart", "purchase", "rating", "search")
    assert type_index("search") == 6


def test_a_type_that_came_after_the_model_is_other_and_its_start_token_stays_where_it_was() -> None:
    older = vocabulary(OLDER).events(["a", "b"], ["search", "view"], [1, 2])
    assert older.type.tolist() == [0, 1]
    assert vocabulary(OLDER).with_start(older).type.tolist() == [OLDER, 0, 1]
    newer = vocabulary(START_TYPE).events(["a", "b"], ["search", "view"], [1, 2])
    assert newer.type.tolist() == [6, 1]
    assert vocabulary(START_TYPE).with_start(newer).type.tolist() == [START_TYPE, 6, 1]


def test_a_log_with_newer_types_is_asked_of_an_older_model_as_it_is_served() -> None:
    events = EventArrays(np.array([0, 1]), np.array([6, 1]), np.array([1, 2]))
    assert recent(events, 8, vocabulary(OLDER)).type.tolist() == [OLDER, 0, 1]
    assert recent(events, 1, vocabulary(OLDER)).type.tolist() == [1]
    assert recent(events, 2, vocabulary(OLDER)).type.tolist() == [0, 1]
