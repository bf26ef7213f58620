"""The gate passes what is as good or better, refuses what is worse, and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from deploy.loop.gate.command import app, compare
from deploy.loop.gate.latency import Latency
from deploy.loop.gate.limits import Figures, Limits, faults
from deploy.loop.gate.lists import Listed
from deploy.loop.gate.measures import Calibration, ColdStart, Pair, calibration, overlap, quality
from deploy.loop.gate.questions import Question
from export.from_baseline import export_baseline
from model.data.dataset import Dataset
from model.errors import RunError
from model.evaluation.bootstrap import Interval
from tests.support.data_builders import tiny_dataset

FEW = Limits(questions=10, latency=1e9)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts that rank by transitions and by popularity, their data, and the same data a while later."""
    folder: Path = tmp_path_factory.mktemp("gate")
    later = tiny_dataset(users=80)
    border = int(np.quantile(later.events["timestamp"].to_numpy(), 0.7))
    events = later.events.filter(pl.col("timestamp") < border)
    users = later.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode()))
    old = Dataset.of("tiny", events, later.items, users, has_time=True, category_kind="path")
    old.save(folder / "old")
    later.save(folder / "later")
    for name in ("transitions", "popularity"):
        export_baseline(name, folder / "old", folder / name)
    return folder


def artifact(home: Path, name: str) -> Path:
    return home / name


def test_a_worse_candidate_is_refused_with_a_report_and_a_better_one_passes(home: Path, tmp_path: Path) -> None:
    def run(candidate: str, champion: str, *more: str) -> tuple[int, dict[str, object]]:
        done = CliRunner().invoke(app, [
            "--candidate", str(artifact(home, candidate)), "--champion", str(artifact(home, champion)),
            "--data", str(home / "later"), "--runs", "4", "--questions-least", "10", "--latency-times", "1e9",
            "--calibration-loss", "1",
            "--report", str(tmp_path / "report.md"), "--json", str(tmp_path / "report.json"), *more,
        ])  # fmt: skip
        assert (tmp_path / "report.json").exists(), done.output
        report: dict[str, object] = json.loads((tmp_path / "report.json").read_text("utf-8"))
        return done.exit_code, report

    code, said = run("popularity", "transitions")
    assert code == 1 and said["passed"] is False
    page = (tmp_path / "report.md").read_text("utf-8")
    assert "**refused**" in page and "ndcg@10 falls from" in page and "| recall@10 of new users |" in page
    code, said = run("transitions", "popularity")
    assert (code, said["faults"]) == (0, [])
    assert "**passed**" in (tmp_path / "report.md").read_text("utf-8")
    code, said = run("transitions", "transitions", "--questions-least", "10000")
    assert code == 1 and "a verdict needs 10,000" in str(said["faults"])


def test_recorded_requests_are_compared_and_damaged_ones_named(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"user_id": "u1", "events": [{"item_id": "i3"}]}\n\n{"events": []}\n{"user_id": "nobody"}\n')
    both = artifact(home, "transitions"), artifact(home, "popularity"), home / "later", FEW
    found = compare(*both, requests=file, runs=2)
    same = compare(both[0], both[0], *both[2:], requests=file, runs=2)
    assert same.found.overlap == 1.0 > found.found.overlap
    file.write_text("nonsense\n")
    with pytest.raises(RunError, match=r"recorded requests(?s:.*)requests.jsonl"):
        compare(*both, requests=file, runs=2)


def test_a_hold_out_that_the_candidate_knows_is_refused(home: Path) -> None:
    both = artifact(home, "transitions"), artifact(home, "popularity")
    with pytest.raises(RunError, match="no user with a history is held out"):
        compare(*both, home / "later", FEW, since_ms=2**45)
    assert compare(*both, home / "old", FEW, runs=2).held_out == "the last event of each user"


def question(target: str | None, user: int = 0) -> Question:
    return Question(user, (), (), (), target)


def listed(scores: list[float], items: str = "abcdefgh") -> Listed:
    return Listed(list(items[: len(scores)]), np.array(scores, np.float32))


def test_calibrated_scores_have_a_slope_of_one_and_no_error_and_sharper_ones_less() -> None:
    rng = np.random.default_rng(0)
    questions, lists, sharper = [], [], []
    for n in range(1500):
        scores = np.sort(rng.normal(size=6) * 1.5)[::-1]
        weight = np.exp(scores) / np.exp(scores).sum()
        questions.append(question("abcdef"[rng.choice(6, p=weight)], n))
        lists.append(listed(scores.tolist()))
        sharper.append(listed((2 * scores).tolist()))
    good, bad = calibration(questions, lists), calibration(questions, sharper)
    assert good.slope == pytest.approx(1, abs=0.1) and bad.slope == pytest.approx(0.5, abs=0.05)
    assert good.error < 0.05 < bad.error and good.answered == 1500
    assert calibration([question("z")], [listed([1.0])]).answered == 0


def test_quality_and_overlap_of_lists_by_hand() -> None:
    questions = [question("b", 0), question("z", 1)]
    one, two = [listed([2, 1]), listed([2, 1])], [listed([2, 1], "ba"), listed([2, 1], "xy")]
    found = quality(questions, one, two)
    assert found["recall@10"].candidate == found["recall@10"].champion == 0.5
    assert found["ndcg@10"].candidate == pytest.approx(0.5 / np.log2(3))
    assert found["ndcg@10"].champion == pytest.approx(0.5)
    assert overlap(one, two) == 0.5


def figures() -> Figures:
    alike = Pair(0.2, 0.2, Interval(0.0, -0.01, 0.01, 1.0))
    return Figures(
        questions=500,
        quality={"ndcg@10": alike},
        calibration=(Calibration(0.1, 1.0, 100), Calibration(0.1, 1.0, 100)),
        latency=Latency((2.0, 3.0), (2.0, 3.0), Interval(0.0, -0.1, 0.1, 1.0), 1.0),
        size=(10.0, 10.0),
        overlap=0.5,
        cold=ColdStart(Pair(float("nan"), float("nan"), None), 2, 1, 3, 1),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"questions": 5}, "only 5 questions"),
        ({"quality": {"ndcg@10": Pair(0.1, 0.2, Interval(-0.1, -0.12, -0.08, 0.0))}}, "ndcg@10 falls"),
        ({"calibration": (Calibration(0.3, 1, 9), Calibration(0.1, 1, 9))}, "calibration error grows"),
        ({"latency": Latency((4.0, 5.0), (2.0, 3.0), Interval(2.0, 1.0, 3.0, 0.0), 2.0)}, "2.00 times as long"),
        ({"size": (20.0, 10.0)}, "20.0 MB"),
        ({"overlap": 0.01}, "1% of the champion's items"),
        ({"cold": ColdStart(Pair(0.1, 0.2, Interval(-0.1, -0.12, -0.08, 0.0)), 0, 0, 0, 0)}, "of new users falls"),
        ({"cold": ColdStart(Pair(float("nan"), float("nan"), None), 2, 0, 3, 0)}, "none of the 2 new items"),
    ],
)
def test_each_way_to_be_worse_is_a_fault_of_its_own(change: dict[str, object], words: str) -> None:
    assert faults(figures(), Limits()) == []
    found = faults(replace(figures(), **change), Limits())  # type: ignore[arg-type]
    assert len(found) == 1 and words in found[0]


def test_what_chance_explains_passes_unless_doubt_refuses() -> None:
    doubtful = {"ndcg@10": Pair(0.18, 0.2, Interval(-0.02, -0.05, 0.01, 0.3))}
    found = replace(figures(), quality=doubtful)
    assert faults(found, Limits()) == []
    assert "may fall by 0.0500" in faults(found, Limits(sure=True))[0]
