"""Two replicas under load while a canary is promoted and another one returned: the short form of the command."""

from __future__ import annotations

from pathlib import Path

from loadtests.loop.promotions import judged, run


def test_promotions_and_returns_under_load_give_no_error_and_no_mixed_answer(two_versions: tuple[Path, Path]) -> None:
    old, new = two_versions
    seen = run(old, new.name, rounds=2, users=6, tell=lambda _: None)
    assert not seen.errors
    assert not seen.mixed
    assert seen.answers >= seen.full >= 30
    assert {version for _, version in seen.arms} == {old.name, new.name}
    assert {arm for arm, _ in seen.arms} >= {"old", "new"}


def test_a_list_of_another_version_is_mixed() -> None:
    expected: dict[str, dict[str, tuple[str, ...]]] = {"a": {"u1": ("1", "2")}, "b": {"u1": ("2", "1")}}
    answer = {"user_id": "u1", "model_version": "a", "items": [{"item_id": "2"}, {"item_id": "1"}]}
    assert judged(answer, expected) == "u1 got a list that a does not make"
    assert judged({**answer, "model_version": "b"}, expected) is None
