"""States are shared between models exactly where their encoders would make the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.graphs.encoder_version import STEPS_MAX, EncoderVersion

IDS = [f"i{n}" for n in range(200)]
INDEX = {item: n for n, item in enumerate(IDS)}


def table(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows of n items, then the unknown item and the start token: the same for the same item, whatever n is."""
    rows = np.random.default_rng(seed).normal(size=(len(IDS) + 2, 3)).astype(np.float32)
    return np.concatenate([rows[2 : n + 2], rows[:2]])


def version(
    graph: Path,
    counts: Sequence[int],
    rows: npt.NDArray[np.float32] | None = None,
    ids: Sequence[str] = IDS,
    attributes: npt.NDArray[np.int64] | None = None,
) -> EncoderVersion:
    n = counts[-1]
    return EncoderVersion.of(graph, ids[:n], table(n) if rows is None else rows, counts, attributes)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("graph") / "encoder.onnx"
    path.write_bytes(b"graph")
    return path


def test_new_items_leave_the_version_and_its_earlier_steps(graph: Path) -> None:
    old, new = version(graph, [5]), version(graph, [5, 7, 9])
    assert new.name == old.name and new.steps[0] == old.steps[0]
    assert [step.items for step in new.steps] == [5, 7, 9] and len({step.digest for step in new.steps}) == 3


def test_whatever_the_encoder_reads_is_part_of_the_version(graph: Path, tmp_path: Path) -> None:
    other = tmp_path / "encoder.onnx"
    other.write_bytes(b"another")
    changed = table(5)
    changed[2, 0] += 1
    unknown = table(5)
    unknown[5, 0] += 1
    names = {
        version(graph, [5]).name,
        version(other, [5]).name,
        version(graph, [5], changed).name,
        version(graph, [5], unknown).name,
        version(graph, [6]).name,
        version(graph, [5], ids=IDS[::-1]).name,
        version(graph, [5], attributes=np.zeros((7, 2), np.int64)).name,
        version(graph, [5], attributes=np.ones((7, 2), np.int64)).name,
    }
    assert len(names) == 8
    old = version(graph, [5], attributes=np.ones((7, 2), np.int64))
    new = version(graph, [5, 6], attributes=np.ones((8, 2), np.int64))
    assert new.name == old.name and new.steps[0] == old.steps[0]


def test_siblings_share_the_states_of_histories_without_their_new_items(graph: Path) -> None:
    other = table(7)
    other[6, 0] += 1
    one, two = version(graph, [5, 7]), version(graph, [5, 7], other)
    assert one.name == two.name
    assert two.holds(one.step_of(["i0", "i4", "gone"], INDEX), ["i0", "i4", "gone"], INDEX)
    assert not two.holds(one.step_of(["i0", "i6"], INDEX), ["i0", "i6"], INDEX)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6, unique=True).map(sorted),
    st.integers(0, 5),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_a_state_holds_in_a_later_model_where_it_has_learned_no_item_of_the_history(
    counts: list[int], made_at: int, history: list[int]
) -> None:
    graph = Path(__file__)
    counts_then = counts[: made_at % len(counts) + 1]
    then, now = version(graph, counts_then), version(graph, counts)
    items = [IDS[n] for n in history]
    learned = any(counts_then[-1] <= n < counts[-1] for n in history)
    assert now.holds(then.step_of(items, INDEX), items, INDEX) == (not learned)
    # The other way round, too: the older model has the state of every history whose items it knows.
    assert then.holds(now.step_of(items, INDEX), items, INDEX) == (not learned)


def test_a_model_without_an_entry_shares_no_states(graph: Path) -> None:
    alone = EncoderVersion.alone("m-1", 5)
    assert alone.name == "m-1" and alone.holds(alone.step_of([], INDEX), [], INDEX)
    assert not alone.holds(EncoderVersion.alone("m-2", 5).steps[0].digest, [], INDEX)


def test_the_steps_are_bounded_and_older_states_are_made_anew(graph: Path) -> None:
    many = version(graph, range(1, 101))
    assert len(many.steps) == STEPS_MAX and many.name == version(graph, [1]).name
    assert not many.holds(version(graph, [1]).steps[0].digest, ["i0"], INDEX)


def test_the_entry_of_the_manifest_comes_back_and_another_format_is_named(graph: Path) -> None:
    made = version(graph, [5, 7])
    assert EncoderVersion.from_json(made.to_json()) == made
    with pytest.raises(ValueError, match="format 2, this service reads 1"):
        EncoderVersion.from_json(made.to_json() | {"format": 2})
    damaged: list[dict[str, object]] = [{"steps": []}, {"steps": [[7, "00"]]}, {"steps": 3}, {"version": ""}]
    for damage in damaged:
        with pytest.raises(ValueError, match="damaged"):
            EncoderVersion.from_json(made.to_json() | damage)
