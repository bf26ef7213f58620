"""What docs/reliability.md says of figures written by hand: above all, that what was not kept is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.common import results
from loadtests.draw import __main__ as draw
from loadtests.draw import plots as draw_plots
from loadtests.draw import reliability, tables, timelines


def fault(group: str, **more: Any) -> dict[str, Any]:
    return {
        "group": group, "fault": "it is stopped", "promise": "popularity answers", "seconds": 10.0, "requests": 1_200,
        "answers": {"full": 900, "popular": 300}, "reasons": {"state_unavailable": 300}, "errors": {},
        "events": {"acknowledged": 500, "refused": 80, "lost": 0, "twice": 0}, "late": 2, "budget_ms": 80,
        "p99_ms": 30.0, "wrong": 0, "wrong_examples": [], "recovery_s": 0.25, "holds": True, "broken": [], **more,
    }  # fmt: skip


def load(**more: Any) -> dict[str, Any]:
    return {
        "offered_rate": 50.0, "requests": 100, "answered": 100, "errors": {}, "within_budget": 99.95,
        "latency_ms": {"p50": 5.0, "p99": 60.0, "p99.9": 79.0}, "rungs": {"full": 40, "item_cf": 60},
        "reasons": {"overload": 60, "deadline": 1}, "model_rate": 20.0, "attempts": {"ok": 40, "late": 3},
        "changes": [], "each_second": [{"rungs": {"full": 20, "item_cf": 30}}] * 2,
        "service_cores": 0.9, "generator": {"cpu_share": 0.2, "late_share": 0.01}, "guard": [], **more,
    }  # fmt: skip


BREACH = {
    **load(), "fault": "it is slow", "reason": "latency_budget", "seconds": 4,
    "moved_s": 2.5, "back_s": 3.5, "full_s": None, "turns": 2, "moments": {"fault": 1.0, "healed": 2.0},
    "changes": [{"at": 1.5, "breaker": "half_open", "model_share": 0.05, "cause": "latency_budget"}],
    "each_step": [{"rungs": {"full": 5, "item_cf": 5}}] * 8,
    "guard": [{"at": 0.5, "model_share": 1.0}, {"at": 1.5, "model_share": None}, {"at": 2.5, "model_share": 0.05}],
}  # fmt: skip
FOUND: dict[str, dict[str, Any]] = {
    "faults": {"faults": {
        "redis stopped": fault("redis"),
        "model hangs": fault("model", holds=False, broken=["3 lists were wrong"], recovery_s=None,
                             errors={"/recommend 503": 4}),
        "moon falls": fault("sky"),
    }},
    "overload": {
        "budget_ms": 80.0, "users": 400, "floor": {"rate": 1000.0}, "capacity": {"rate": 45.0},
        "slowed": {"run_ms": 8.0, "row_ms": 8.0},
        "runs": [load(times=1), load(times=10, model_rate=18.0, changes=BREACH["changes"])],
        "unslowed": [load(share_of_floor=0.5, holds=True, rungs={"full": 100}),
                     load(share_of_floor=1.0, holds=False, latency_ms={"p50": 50.0, "p99": 400.0, "p99.9": 500.0})],
    },
    "breach": {"rate": 120.0, "step_s": 0.5, "breaches": {"latency breach": BREACH, "error breach": BREACH}},
    "hostile": {
        "others_rate": 40.0, "hostile_rate": 10.0, "ratio_max": 1.5,
        "kinds": {"filters": {
            "text": "filters that are new each time", "sent": 1_000, "outcomes": {"200": 990, "422": 10},
            "calm": {"latency_ms": {"p99": 10.0}}, "ratio": 1.2, "before_mib": 150.0, "peak_mib": 180.0,
            "grows_max_mib": 160.0,
            "hostile": {"latency_ms": {"p99": 12.0}, "errors": {"/recommend 503": 2}, "rungs": {"full": 3_900}},
        }},
    },
    "toggle": {
        "limit_s": 1.0,
        "trials": [{"message": message, "reached_s": reached, "old_afterwards": 0}
                   for message, reached in (("sent", [0.01, 0.02]), ("sent", [0.04, 0.03]), ("lost", [0.1, None]))],
        "restart": {"first_lists_forced": [True, False]},
        "frozen": {"put_s": 0.26, "shared": False, "agreed_s": 0.1},
        "away": {"agreed_s": 0.5, "modes": [{"mode": "auto"}, {"mode": "auto"}]},
    },
}  # fmt: skip


def rendered(folder: Path) -> str:
    for name, payload in FOUND.items():
        results.save(name, payload, command=f"measure {name}", folder=folder)
    row = results.row("2 model hangs", 1, "promises broken", "measure faults", at_most=0)
    results.record(folder / "reliability.json", row)
    return draw.render(draw.RELIABILITY, folder)


def test_every_section_is_drawn_from_its_file(tmp_path: Path) -> None:
    text = rendered(tmp_path)
    assert tables.NOT_YET not in text
    for expected in (
        "| redis stopped | 1,200 | 900 | 0 | 0 | 300 | 2 | 0 | 0 | 500 | 0 | 0 | 0.25 | yes |", "### sky",
        "*redis stopped*: it is stopped. Promised: popularity answers.", "4.5 % of that", "| 10 × |",
        "| 90 % | 3 | 1 |",
        "- 10 ×: overload 60, deadline 1.", "The service fails at 50 requests/s: p99 is 400 ms", "uses 0.9 cores",
        "| latency breach | 2.5 | 3.5 | – | 2 |", "half open at 1.5 s",
        "| by the message | 2 | 2 | 0.03 | 0.04 | 0 | 0 |",
        "| message lost: by the poll | 1 | 0 | inf | inf | 1 | 0 |", "the mode set before: **no**", "as local only",
        "| filters | 1,000 | 10 | 12 | 1.2 | 2 | 3,900 | 0 | 0 | 0 | 150 | 180 | 160 |", "Answered: 200 990, 422 10.",
        "(reliability/overload.svg)", "(reliability/error_breach.svg)",
    ):  # fmt: skip
        assert expected in text, expected


def test_a_broken_promise_stands_out_in_the_criteria_the_table_and_the_list(tmp_path: Path) -> None:
    text = rendered(tmp_path)
    assert "| 2 model hangs | 1 promises broken | ≤ 0 | **no** |" in text
    assert "**Promises were broken in 1 of them: model hangs.**" in text
    assert "| – | **no** |" in text
    assert "Errors: /recommend 503 4. **Broken: 3 lists were wrong.**" in text


def test_where_every_promise_held_nothing_is_bold() -> None:
    said = reliability.faults({"faults": {"redis stopped": fault("redis")}})
    assert "every promise held" in said
    assert "**" not in said


def test_what_bore_every_rate_did_not_give_out() -> None:
    found = {**FOUND["overload"], "unslowed": [load(share_of_floor=0.5, holds=True, rungs={"full": 100})]}
    assert "The service sustained every rate" in reliability.overload(found)


def test_timelines_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots = timelines.wanted(FOUND)
    first = {path.name: path.read_bytes() for path in draw_plots.draw(plots, tmp_path)}
    assert first == {path.name: path.read_bytes() for path in draw_plots.draw(plots, tmp_path)}
    assert set(first) == {"overload.svg", "overload_model.svg", "latency_breach.svg", "error_breach.svg", "toggle.svg"}
