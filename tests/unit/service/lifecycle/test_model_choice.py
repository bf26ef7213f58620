"""Where rollbacks lead, over any order of activations and rollbacks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.lifecycle.model_choice import (
    EARLIER_MAX,
    after_activation,
    after_rollback,
    chosen_fields,
    earlier_versions,
    usable,
)

VERSIONS = st.sampled_from([f"v{n}" for n in range(4)])


@given(st.lists(st.one_of(VERSIONS, st.none()), max_size=30))
def test_no_row_of_rollbacks_returns_to_a_version_that_it_left(steps: list[str | None]) -> None:
    """A step is the activation of a version, or, as None, a rollback."""
    active, earlier, left = "v0", list[str](), set[str]()
    for version in steps:
        if version is None and not earlier:
            continue
        if version is None:
            left.add(active)
            active, earlier = earlier[0], after_rollback(earlier[0], active, earlier)
            assert active not in left
        else:
            left.clear()
            active, earlier = version, after_activation(version, active, earlier)
        assert active not in earlier and len(set(earlier)) == len(earlier)
        assert earlier_versions(chosen_fields(active, earlier, None)) == earlier


def test_a_rollback_undoes_the_latest_activation_first() -> None:
    earlier = after_activation("b", "a", [])
    earlier = after_activation("c", "b", earlier)
    assert earlier == ["b", "a"]
    assert after_activation("c", "c", earlier) == earlier
    assert after_rollback("b", "c", earlier) == ["a"]


def test_only_the_nearest_versions_are_kept() -> None:
    earlier: list[str] = []
    for n in range(2 * EARLIER_MAX):
        earlier = after_activation(f"v{n + 1}", f"v{n}", earlier)
    assert earlier == [f"v{n}" for n in range(2 * EARLIER_MAX - 1, EARLIER_MAX - 1, -1)]


def test_a_choice_of_an_older_release_is_read_and_a_damaged_one_is_not_used() -> None:
    assert earlier_versions({"version": "b", "previous": "a", "deployed": None}) == ["a"]
    assert earlier_versions({"version": "b", "previous": None, "deployed": None}) == []
    assert usable({"version": "b", "previous": "a", "deployed": None})
    assert not usable({"version": "b", "earlier": [1]}) and not usable({"version": "b", "earlier": "a"})
