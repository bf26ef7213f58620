"""Names of the parts of the ranking, criteria written down beforehand, and ranks that two commits are compared by."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.demo import TRAIN_MINUTES
from loadtests.common import results
from loadtests.draw import quality_strict
from loadtests.quality import before, criteria
from loadtests.quality.protocols import SAMPLED, STRICT, ordered, part_name, reading
from loadtests.quality.published import PUBLISHED, best
from loadtests.quality.ranks import Ranks, RanksError
from tests.support.figures import keep_in

USERS = tuple(f"ü{n}" for n in range(200))


def ranks(found: int, users: tuple[str, ...] = USERS, seed: int = 0, split: str = STRICT) -> Ranks:
    """The first `found` users have their target at the top; the others have it nowhere."""
    place = {user: 0 if n < found else -1 for n, user in enumerate(USERS)}
    return Ranks("shop", "f" * 64, split, seed, users, {"served": np.array([place[user] for user in users], np.int8)})


def part(work: Path, label: str, *of_seeds: Ranks) -> None:
    folder = work / label.replace(" ", "-")
    for one in of_seeds:
        one.save(folder / str(one.seed) / "ranks.npz")
    (folder / before.PART).write_text(label, "utf-8")


@pytest.mark.parametrize("split", [STRICT, SAMPLED])
def test_the_name_of_a_part_says_its_split_and_what_was_changed(split: str) -> None:
    name = part_name("ml-1m", split, "shuffled", 30.0, ["network.layers=1"])
    assert name == ("strict " if split == STRICT else "") + "ml-1m, ties shuffled, 30 minutes, network.layers=1"
    one = reading(name)
    assert (one.data, one.split, one.shuffled) == ("ml-1m", split, True)
    assert one.name == "ml-1m, ties shuffled, 30 minutes, network.layers=1"


def test_strict_parts_come_first_and_shuffled_ties_beside_their_data() -> None:
    parts = ["A", "strict B", "A, validation_users=0", "strict A", "B", "strict A, ties shuffled"]
    assert ordered(parts) == ["strict A", "strict A, ties shuffled", "strict B", "A, validation_users=0", "A", "B"]
    assert reading("A, validation_users=0").split == "strict, before the ranker"


def test_every_criterion_is_written_down_once_with_a_limit_or_a_goal() -> None:
    names = [one.name for one in criteria.CRITERIA]
    assert len(set(names)) == len(names)
    assert all(one.limit or one.goal for one in criteria.CRITERIA)
    assert criteria.limit("strict Beauty: recall@10") == {"at_least": 0.102}
    assert criteria.limit("strict Beauty, ties shuffled: ndcg@10") == {"above": best("Beauty")[1]}
    assert best("Beauty") == (0.0928, 0.0547)
    assert all(one.read in ("source", "quoted", "noted") for figures in PUBLISHED.values() for one in figures)


def test_a_criterion_is_shown_as_met_missed_or_not_measured() -> None:
    def row(name: str, value: float) -> dict[str, object]:
        made = results.row(name, value, "", "measure it", **criteria.limit(name))
        return {"criterion": name, "value": made.value, "holds": made.holds, "date": made.date}

    rows = [row("strict Beauty: recall@10", 0.115), row("strict Beauty: ndcg@10", 0.06)]
    lines = {line.split(" | ")[1]: line for line in quality_strict.criteria(rows, {}).splitlines() if " | " in line}
    assert "| ≥ 0.102 | 0.112 | 0.1150 | yes | yes |" in lines["strict Beauty: recall@10"]
    assert "| ≥ 0.061 | 0.068 | 0.0600 | **missed** | no |" in lines["strict Beauty: ndcg@10"]
    assert "| not measured | – |" in lines["LastFM: recall@10"]
    assert "| – | 0.345 | – | – | not measured |" in lines["strict ml-1m, 30 minutes: recall@10"]


def test_ranks_come_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = ranks(7)
    saved.save(tmp_path / "ranks.npz")
    loaded = Ranks.load(tmp_path / "ranks.npz")
    assert (loaded.key, loaded.users, loaded.data) == (saved.key, saved.users, saved.data)
    np.testing.assert_array_equal(loaded.of("served"), saved.of("served"))
    assert (tmp_path / "ranks.npz").stat().st_size < 20 * len(USERS)


def test_another_format_and_a_damaged_file_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "ranks.npz"
    ranks(7).save(file)
    with zipfile.ZipFile(file) as archive:
        about = bytes(np.load(io.BytesIO(archive.read("about.npy")))).decode()
    newer = np.frombuffer(about.replace('"format": 1', '"format": 9').encode(), np.uint8)
    np.savez(file, about=newer, allow_pickle=False)
    with pytest.raises(RanksError, match="has format 9, this version reads 1"):
        Ranks.load(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(RanksError, match="is no file of ranks"):
        Ranks.load(file)


def test_users_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    part(tmp_path / "work", "strict shop", ranks(120), ranks(110, seed=1))
    ranks(100, USERS[::-1]).save(tmp_path / "old" / "a" / "ranks.npz")
    ranks(104, USERS[::-1], seed=1).save(tmp_path / "old" / "b" / "ranks.npz")
    rows = before.compare(tmp_path / "work", tmp_path / "old")
    assert [(row["part"], row["measure"], row["seeds"]) for row in rows] == [
        ("strict shop", measure, [0, 1]) for measure in criteria.MEASURES
    ]
    row = rows[0]
    assert row["difference"] == pytest.approx((0.10 + 0.03) / 2)
    assert row["least_of_seeds"] == pytest.approx(0.03)
    assert row["low"] > 0
    assert row["lost_high"] < 0


def test_what_cannot_be_paired_is_said(tmp_path: Path) -> None:
    part(tmp_path / "work", "strict shop", ranks(120))
    ranks(100, split=SAMPLED).save(tmp_path / "old" / "a" / "ranks.npz")
    with pytest.raises(RanksError, match="share no training"):
        before.compare(tmp_path / "work", tmp_path / "old")
    for name in ("b", "c"):
        ranks(100).save(tmp_path / "old" / name / "ranks.npz")
    with pytest.raises(RanksError, match="are both of shop, split strict, seed 0"):
        before.compare(tmp_path / "work", tmp_path / "old")
    ranks(100, USERS[:-1]).save(tmp_path / "fewer" / "ranks.npz")
    with pytest.raises(RanksError, match="asked other users"):
        before.compare(tmp_path / "work", tmp_path / "fewer")


def test_a_loss_is_ruled_out_only_where_holms_procedure_rejects_it() -> None:
    rng = np.random.default_rng(0)

    def row(gain: float, users: int) -> dict[str, Any]:
        theirs = (rng.random(users) < 0.3).astype(np.float64)
        return {"values": (np.clip(theirs + (rng.random(users) < gain), 0, 1), theirs)}

    clear, small, same = row(0.1, 4000), row(0.004, 4000), row(0.0, 4000)
    lost: dict[str, Any] = {"values": (same["values"][0] * 0.9, same["values"][1])}
    rows = [lost, clear, small, same]
    before.bound_losses(rows)
    held = [row["lost_high"] < criteria.LARGEST_LOSS for row in rows]
    assert held == [False, True, True, True]
    levels = [row["level"] for row in rows]
    assert max(levels) == levels[0] == before.LEVEL  # the last to be tested


def test_the_comparison_is_recorded_with_the_limits_of_the_criteria(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in(tmp_path, monkeypatch)
    label = criteria.KEPT[0]
    part(tmp_path / "work", label, ranks(120))
    ranks(125).save(tmp_path / "old" / "ranks.npz")
    said: list[str] = []
    before.record(before.compare(tmp_path / "work", tmp_path / "old"), said.append)
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "quality.json")}
    assert rows[f"{label}: recall@10 {criteria.LOST}"]["limit"] == "< 0.01"
    assert rows[f"{label}: recall@10 {criteria.LOST}"]["holds"] is False
    assert len(said) == 2
    found = results.load(before.NAME, tmp_path)
    assert found is not None
    assert "| Beauty, strict | recall@10 | 1 | 0.6250 | 0.6000 |" in quality_strict.before(found)


def test_the_cost_of_a_list_is_drawn_before_and_now() -> None:
    row = {
        "items": 12_000, "batch": 32, "before": [2.0, 4.0, 3.0], "now": [3.0, 3.3, 9.0], "ratio": 1.1,
        "after_an_event": [4.0, 5.0, 6.0], "ratio_after_an_event": 1.67,
    }  # fmt: skip
    host = {"items": 12_000, "speak": 1234.4, "signals": {"p50": 0.5, "p99": 1.5}, "rung": {"p50": 0.25, "p99": 0.75}}
    drawn = quality_strict.cost({"rows": [row], "host": [host], "date": "today"})
    assert "| 12,000 | 32 | 3 | 3.3 | 5 | 1.10 × | 1.67 × |" in drawn
    assert "| 12,000 | 1,234 | 0.5 | 1.5 | 0.25 | 0.75 |" in drawn


def test_the_criterion_of_the_demo_is_of_the_demos_time() -> None:
    assert f"strict movielens-100k, {TRAIN_MINUTES:g} minutes" in criteria.KEPT
