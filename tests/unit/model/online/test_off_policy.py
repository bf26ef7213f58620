"""Judging policies by a log: right where the truth is known, and refused with a sentence where the log cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.online.log_folder import LogFolder
from model.online.log_schema import LogError, frame_of
from model.online.logged_lists import read_sample
from model.online.marginals import Law, conditionals, log_weights, marginals
from model.online.off_policy import judge
from model.online.partitions import LogRange
from model.online.targets import PoliciesTarget
from service.engine.decode.draws import nucleus
from service.policies.policies import Policies, parse

K, CANDIDATES = 3, 8
SCORES = np.linspace(0.0, 2.0, CANDIDATES).astype(np.float32)
CLICK = np.linspace(0.05, 0.6, CANDIDATES)[:, None] * np.array([1.0, 0.7, 0.5])


def policies(**decodings: dict[str, Any]) -> Policies:
    segments = [{"name": name, "decoding": decoding} for name, decoding in decodings.items()]
    return parse({"segments": segments, "default": segments[0]["name"]})


def shown(number: int, segment: str, order: np.ndarray, law: Law | None, **more: Any) -> dict[str, Any]:
    """A list as it is logged; without a law, by score alone."""
    row: dict[str, Any] = {
        "list_id": f"L{number}", "subject": f"u:{number // 3}", "time_ms": number, "k": K, "segment": segment,
        "items": [f"i{item}" for item in order], "scores": SCORES[order].tolist(), "drawn": 0, "strategy": "beam",
        "parameters": {"temperature": None, "top_p": None, "beam_width": 5}, "log_propensities": [0.0] * K,
        "model_version": "m", "seed": str(number), "arms": [],
    }  # fmt: skip
    if law is not None:
        row |= {
            "drawn": K, "strategy": "top_p", "log_propensities": conditionals(SCORES, law, order).tolist(),
            "parameters": {"temperature": law.temperature, "top_p": min(law.nucleus, 1.0), "beam_width": None},
            "candidates": list(range(100, 100 + CANDIDATES)), "candidate_scores": SCORES.tolist(),
        }  # fmt: skip
    return row | more


def drawn_order(rng: np.random.Generator, law: Law) -> np.ndarray:
    log_weight = log_weights(SCORES, law)
    key = np.where(nucleus(log_weight, law.nucleus), log_weight, log_weight - 1e6) + rng.gumbel(size=CANDIDATES)
    return np.argsort(-key)[:K]


def clicks(rng: np.random.Generator, row: dict[str, Any]) -> list[dict[str, Any]]:
    chance = CLICK[[int(item[1:]) for item in row["items"]], np.arange(K)]
    return [
        {"subject": row["subject"], "item_id": item, "type": "click", "time_ms": row["time_ms"],
         "list_id": row["list_id"], "received_ms": row["time_ms"]}
        for item in np.array(row["items"])[rng.random(K) < chance].tolist()
    ]  # fmt: skip


def log_of(folder: Path, rows: list[dict[str, Any]]) -> LogRange:
    rng = np.random.default_rng(0)
    log = LogFolder(folder)
    log.write("exposures", frame_of("exposures", rows), "x")
    log.write("events", frame_of("events", [event for row in rows for event in clicks(rng, row)]), "x")
    return LogRange(log)


def drawn_rows(n: int, law: Law, segment: str = "all", **more: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [shown(i, segment, drawn_order(rng, law), law, **more) for i in range(n)]


def judged(span: LogRange, target: Policies, **options: Any) -> dict[str, Any]:
    sample = read_sample(span, "clicks", lists_max=options.pop("lists_max", 10**6))
    return judge(sample, PoliciesTarget(target, "policies"), **options)


def truth(law: Law) -> float:
    return 1000 * float((marginals(SCORES, law, K) * CLICK).sum())


@pytest.fixture(scope="module")
def drawn_log(tmp_path_factory: pytest.TempPathFactory) -> LogRange:
    return log_of(tmp_path_factory.mktemp("drawn"), drawn_rows(1500, Law(1.0)))


def test_another_temperature_is_judged_as_it_would_have_been(drawn_log: LogRange) -> None:
    found = judged(drawn_log, policies(all={"strategy": "temperature", "temperature": 0.7}))
    assert set(found["estimates"]) == {"ips", "snips", "dr", "list_ips"}
    for name, value in found["estimates"].items():
        assert value["low"] < truth(Law(0.7)) < value["high"], name
        assert value["high"] - value["low"] < 0.35 * value["value"], name
        assert found["lift"][name]["value"] == pytest.approx(value["value"] - found["logged"]["value"])
    assert found["logged"]["low"] < truth(Law(1.0)) < found["logged"]["high"]
    assert found["segments"][0]["mean_weight"] == pytest.approx(1.0, abs=0.05)
    assert found["segments"][0]["outside"] == 0.0


def test_lists_by_score_are_judged_too(drawn_log: LogRange) -> None:
    found = judged(drawn_log, policies(all={"strategy": "greedy"}))
    for name in ("ips", "snips", "dr"):
        value = found["estimates"][name]
        assert value["low"] < truth(Law(sampled=False)) < value["high"], name


def test_the_policy_of_the_log_is_judged_by_its_own_lists(drawn_log: LogRange) -> None:
    found = judged(drawn_log, policies(all={"strategy": "temperature", "temperature": 1.0}))
    assert found["segments"][0]["on_policy"]
    assert found["estimates"]["ips"] == pytest.approx(found["logged"])


def test_a_part_of_the_subjects_is_enough(drawn_log: LogRange) -> None:
    found = judged(
        drawn_log, policies(all={"strategy": "temperature", "temperature": 0.9}), lists_max=750, least_effective=100
    )
    assert found["share_of_subjects"] == 0.5 and 200 < found["subjects"] < 300
    value = found["estimates"]["dr"]
    # Which subjects these are depends on a hash, so the interval is given three times its width.
    width = value["high"] - value["low"]
    assert value["low"] - width < truth(Law(0.9)) < value["high"] + width


def test_segments_count_by_their_shares_of_all_lists(tmp_path: Path) -> None:
    best = np.argsort(-SCORES)[:K]
    explored = drawn_rows(450, Law(1.0), "a")
    plain = [shown(i, "a", best, None) for i in range(450, 1500)]
    other = [shown(i, "b", best, None) for i in range(1500, 2100)]
    span = log_of(tmp_path, explored + plain + other)
    target = policies(a={"strategy": "temperature", "temperature": 0.6}, b={"strategy": "beam"})
    found = judged(span, target, least_effective=80)
    assert [one["on_policy"] for one in found["segments"]] == [False, True]
    assert [one["share"] for one in found["segments"]] == pytest.approx([1500 / 2100, 600 / 2100])
    expected = (1500 * truth(Law(0.6)) + 600 * truth(Law(sampled=False))) / 2100
    assert found["estimates"]["dr"]["low"] < expected < found["estimates"]["dr"]["high"]
    exploiting = judged(span, policies(a={"strategy": "beam"}, b={"strategy": "beam"}))
    assert exploiting["segments"][0]["on_policy"] and exploiting["segments"][0]["used"] == 1050
    with pytest.raises(LogError, match="the policies have no segment 'b'"):
        judged(span, policies(a={"strategy": "beam"}))


def test_segments_that_show_different_items_are_judged_side_by_side(tmp_path: Path) -> None:
    rows = drawn_rows(450, Law(1.0), "a")
    for number, row in enumerate(drawn_rows(450, Law(1.5), "b"), start=450):
        items = [f"j{item[1:]}" for item in row["items"]]
        rows.append({**row, "list_id": f"L{number}", "seed": str(number), "items": items, "model_version": "n"})
    target = policies(a={"strategy": "temperature", "temperature": 0.6}, b={"strategy": "greedy"})
    found = judged(log_of(tmp_path, rows), target, least_effective=20)
    expected = (truth(Law(0.6)) + truth(Law(sampled=False))) / 2
    for name in ("ips", "snips", "dr"):
        value = found["estimates"][name]
        width = value["high"] - value["low"]
        assert value["low"] - width / 2 < expected < value["high"] + width / 2, name


def refusal(tmp_path: Path, rows: list[dict[str, Any]], target: dict[str, Any], **options: Any) -> str:
    found = judged(log_of(tmp_path, rows), policies(all=target), **options)
    assert found["estimates"] == {}
    return str(found["refused"])


def test_deterministic_lists_say_nothing_of_other_policies(tmp_path: Path) -> None:
    rows = [shown(i, "all", np.argsort(-SCORES)[:K], None) for i in range(300)]
    assert "lists are deterministic" in refusal(tmp_path, rows, {"strategy": "temperature"})


def test_a_nucleus_cannot_speak_for_items_outside_it(tmp_path: Path) -> None:
    rows = drawn_rows(630, Law(1.0, 0.6))
    assert "could not have been drawn" in refusal(tmp_path, rows, {"strategy": "temperature", "temperature": 2.0})


def test_too_few_subjects_are_not_enough(tmp_path: Path) -> None:
    said = refusal(tmp_path, drawn_rows(300, Law(1.0)), {"strategy": "temperature", "temperature": 0.8})
    assert "estimates need 200" in said


def test_lists_that_were_not_drawn_as_the_log_says_are_refused(tmp_path: Path) -> None:
    rows = drawn_rows(630, Law(1.0))
    for row in rows:
        row["parameters"] = {"temperature": 0.5, "top_p": 1.0, "beam_width": None}
    said = refusal(tmp_path, rows, {"strategy": "temperature", "temperature": 0.8})
    assert "do not give the propensities that were logged" in said


def test_lists_without_a_law_or_with_one_seed_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = drawn_rows(630, Law(1.0))
    for row in rows[:10]:
        row["log_propensities"] = None
    for row in rows[10:20]:
        row["seed"] = "7"
    rows[20]["set_log_propensity"] = -1.0
    span = log_of(tmp_path, rows)
    found = judged(span, policies(all={"strategy": "temperature", "temperature": 0.8}), least_effective=100)
    # Four users had the seed 7, on ten lists.
    assert found["left_out"] == {"all: no_law": 10, "all: reordered": 1, "all: shared_seed": 4, "all: shown_again": 6}
    assert found["drawn"] == 630 - 21 and not found["refused"]


def test_of_a_list_that_is_shown_again_the_first_counts(tmp_path: Path) -> None:
    rows = drawn_rows(630, Law(1.0))
    again = [{**row, "list_id": f"again{n}", "time_ms": row["time_ms"] + 1} for n, row in enumerate(rows[:90])]
    span = log_of(tmp_path, rows + again)
    found = judged(span, policies(all={"strategy": "temperature", "temperature": 0.8}), least_effective=100)
    assert (found["left_out"], found["drawn"]) == ({"all: shown_again": 90}, 630)
    assert not found["refused"]  # nothing is lost: these are the same draws


def until_clicked(folder: Path, questions: int, explored: float, **of_plain: Any) -> LogRange:
    """A log of lists that are shown again until something is clicked; some are drawn, the others are best by score."""
    rng, law = np.random.default_rng(3), Law(1.0)
    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for question in range(questions):
        drawn = rng.random() < explored
        order = drawn_order(rng, law) if drawn else np.argsort(-SCORES)[:K]
        more = {"subject": f"u:{question // 3}", "seed": str(question), "history_version": f"v{question}"}
        for _ in range(8):
            row = shown(len(rows), "all", order, law if drawn else None, **more | ({} if drawn else of_plain))
            rows.append(row)
            if got := clicks(rng, row):
                events += got
                break
    log = LogFolder(folder)
    log.write("exposures", frame_of("exposures", rows), "x")
    log.write("events", frame_of("events", events), "x")
    return LogRange(log)


def test_a_policy_gains_nothing_over_itself_where_lists_are_shown_until_something_is_clicked(tmp_path: Path) -> None:
    # All but the policy of the log, so that the lists are weighted.
    found = judged(until_clicked(tmp_path, 1000, 1.0), policies(all={"strategy": "temperature", "temperature": 0.999}))
    assert not found["segments"][0]["on_policy"] and found["lists"] == 1000
    assert found["logged"]["low"] < truth(Law(1.0)) < found["logged"]["high"]
    gain = truth(Law(0.999)) - truth(Law(1.0))
    assert abs(gain) < 1
    for name in ("ips", "snips", "dr"):
        assert found["lift"][name]["low"] < gain < found["lift"][name]["high"], name
        assert abs(found["lift"][name]["value"]) < 15, name


# Lists that might have explored have their seed in the log; those of segments that never explore have none.
@pytest.mark.parametrize("of_plain", [{}, {"seed": None}], ids=["seed", "question"])
def test_drawn_lists_and_others_are_counted_alike_where_they_are_shown_until_something_is_clicked(
    tmp_path: Path, of_plain: dict[str, Any]
) -> None:
    span = until_clicked(tmp_path, 1000, 0.6, **of_plain)
    by_chance, best = truth(Law(1.0)), truth(Law(sampled=False))
    for target, value in (({"strategy": "temperature", "temperature": 0.999}, by_chance), ({"strategy": "beam"}, best)):
        found = judged(span, policies(all=target), least_effective=100)
        assert found["lists"] == 1000
        assert found["logged"]["low"] < 0.6 * by_chance + 0.4 * best < found["logged"]["high"]
        lift = found["lift"]["dr"]
        assert lift["low"] < value - (0.6 * by_chance + 0.4 * best) < lift["high"]


def test_lists_for_nobody_are_each_their_own(tmp_path: Path) -> None:
    rows = drawn_rows(700, Law(1.0), subject="", history_version="")
    plain = [shown(i, "all", np.argsort(-SCORES)[:K], None, subject="", seed=None) for i in range(700, 900)]
    sample = read_sample(log_of(tmp_path, rows + plain), "clicks", lists_max=1000)
    assert (len(sample.made_by_model), len(sample.lists), sample.subjects) == (900, 700, 900)
    assert not sample.left_out
