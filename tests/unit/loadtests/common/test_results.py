"""Rows and payloads of measured figures, and the documents that are drawn from them."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtests.common import results
from loadtests.common.hdr import Latencies
from loadtests.draw import __main__ as draw
from loadtests.draw import plots as draw_plots
from loadtests.draw import tables
from tests.support.figures import write_row


@pytest.mark.parametrize(
    ("limit", "shown", "holds"),
    [({"at_most": 1.5}, "≤ 1.5", True), ({"at_most": 1.2}, "≤ 1.2", False), ({"at_least": 3.0}, "≥ 3", False),
     ({}, None, None)],
    ids=["at-most", "above", "below", "stated"],
)  # fmt: skip
def test_whether_a_row_holds_follows_from_its_limit(
    limit: dict[str, float], shown: str | None, holds: bool | None
) -> None:
    row = results.row("1 cpu", 1.4, "×", "measure it", **limit)
    assert (row.limit, row.holds) == (shown, holds)
    assert "cores" in row.machine
    assert len(row.date) == 10


def test_a_row_takes_the_place_of_its_criterion_and_rows_are_in_order(tmp_path: Path) -> None:
    file = tmp_path / "new" / "engine.json"
    for criterion, value in (("10 late", 1.0), ("2 rate", 2.0), ("1 cpu", 3.0), ("2 rate", 4.0)):
        results.record(file, results.row(criterion, value, "", ""))
    assert [(row["criterion"], row["value"]) for row in results.read_rows(file)] == [
        ("1 cpu", 3.0), ("2 rate", 4.0), ("10 late", 1.0),
    ]  # fmt: skip
    assert set(orjson.loads(file.read_bytes())[0]) == {
        "criterion", "value", "unit", "limit", "holds", "command", "date", "machine",
    }  # fmt: skip


def test_rows_of_several_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    names = [f"{n} row" for n in range(24)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        list(pool.map(write_row, [file] * len(names), names))
    assert [row["criterion"] for row in results.read_rows(file)] == names


def test_a_payload_says_when_where_and_with_which_versions(tmp_path: Path) -> None:
    results.save("curves", {"points": [1, 2]}, command="measure it", folder=tmp_path)
    found = results.load("curves", tmp_path)
    assert found is not None
    assert found["points"] == [1, 2]
    assert found["command"] == "measure it"
    assert {"python", "onnxruntime"} <= set(found["versions"])
    assert results.load("nothing", tmp_path) is None


DOCUMENTS = pytest.mark.parametrize("document", draw.DOCUMENTS, ids=lambda document: document.name)


@DOCUMENTS
def test_the_document_is_what_draw_writes(document: draw.Document) -> None:
    # Where this fails: python -m loadtests.draw
    assert document.path.read_text(encoding="utf-8") == draw.render(document)


@DOCUMENTS
def test_every_plot_the_document_shows_is_there(document: draw.Document) -> None:
    shown = {f"{name}.svg" for name in document.plots(draw.read(document))}
    assert shown == {path.name for path in document.folder.glob("*.svg")}
    text = document.path.read_text(encoding="utf-8")
    assert all(f"]({document.name}/{name})" in text for name in shown)


@DOCUMENTS
def test_without_any_figure_every_section_says_so(document: draw.Document, tmp_path: Path) -> None:
    text = draw.render(document, tmp_path)
    asked = re.findall(r"\{\{(\w+)\}\}", document.template.read_text(encoding="utf-8"))
    assert set(document.sections) <= set(asked), "a section that is not in the document"
    missed = ["summary_missed"] if document is draw.QUALITY else []
    written_beforehand = {
        "strict_criteria",
        "published",
        "summary_judged",
        "summary_limits",
        "method_verdicts",
        *missed,
    }
    assert text.count(tables.NOT_YET) == len(set(asked) - written_beforehand)
    assert "{{" not in text


def test_a_template_that_asks_for_what_there_is_not_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / "template.md"
    template.write_text("{{nothing}}")
    with pytest.raises(ValueError, match="nothing"):
        draw.render(draw.PERFORMANCE, tmp_path, template)


def latency(*ms: float) -> dict[str, Any]:
    return Latencies(ms).report()


FOUND: dict[str, dict[str, Any]] = {
    "cpu": {"median": {"service": 900.0, "bare_route": 300.0},
            "median_in_loops": {"service": 700.0, "bare_route": 200.0},
            "rounds": [{"service": 890.0, "bare_route": 290.0}, {"service": 910.0, "bare_route": 310.0}]},
    "peers": {"systems": [
        {"name": "ours", "variant": "decode only", "rps": 600.0, "p50_ms": 3.0, "p99_ms": 40.0, "cannot": [],
         "notes": [], "method": "highest rate", "cpu_ms_a_request": 1.5, "wrk": {"rps": 640.0}},
        {"name": "theirs", "variant": "encode + decode", "rps": 200.0, "p50_ms": 9.0, "p99_ms": 48.0,
         "cannot": ["exclude items"], "notes": ["two workers"], "method": "one at a time", "wrk": None}]},
    "scale": {
        "k": 10, "width": 64, "trie_build_s": {"10000": 0.01, "1000000": 1.5},
        "decode_ms": {"10000": {"p50": 1.0, "p95": 1.1}, "1000000": {"p50": 1.3, "p95": 1.4}},
        "constraint_ms": {size: {"on": {"p50": 0.9}, "off": {"p50": 0.8}} for size in ("10000", "1000000")},
        "step_ms": {"ours, level 1": {"p50": 0.02, "p95": 0.03}},
        "probes": {"10000": {"own memory, MiB": 5.0}, "1000000": {"own memory, MiB": 50.0}},
    },
    "history": {"lengths": [50, 2000], "recommend_p50_ms": [2.0, 2.1], "event_cpu_us": [500.0, 520.0]},
    "curves": {"curves": {
        "k": [{"k": 1, "ms": latency(1.0), "rate": 900.0, "full_share": 1.0}],
        "batch": [{"batch": 1, "decode_ms": latency(1.0), "decode_ms_a_row": 1.0, "encode_ms": latency(0.3),
                   "encode_ms_a_row": 0.3}]}},
    "redis": {"blob_bytes": {"users": 2, "p50": 10.0, "mean": 11.0, "max": 12}, "other_keys_bytes": {},
              "log_bytes": {"users": 2, "p50": 20.0, "mean": 21.0, "max": 22}, "flood": {"events": 9, "bytes": 77},
              "growth": [{"users": 2, "redis_mib": 1.0, "service_mib": 100.0, "recommend_ms": latency(2.0)}]},
    "reflected": {"trials": 10, "users": 2, "missed": {}, "rungs": {"full": 10}, "compared": 9,
                  "ack_to_reflected_ms": latency(3.0)},
    "engine_before": {"rows": [{"criterion": "1 cpu", "value": 1.5, "unit": "×", "limit": None, "holds": None,
                                "date": "2026-01-02", "command": "measure cpu", "machine": "one"}]},
    "before_after": {"cpu": {"pairs": [{"before": {"cpu_us": 900.0}, "after": {"cpu_us": 450.0}}],
                             "interval": [0.4, 0.6], "ratio": 0.5},
                     "rates": {"rounds": [{"before": {"rate": 500.0}, "after": {"rate": 900.0}}], "ratio": 1.8},
                     "places": {"beam": {"places": 100, "same": 1.0}}},
    "batches": {"size": 100, "pairs": [{"batch": {"cpu_us": 90.0}, "single": {"cpu_us": 360.0}}],
                "ratio": 0.25, "interval": [0.2, 0.3]},
    "cells": {"sizes": {"10000": {"cells": 128, "points": {
                  "1024": {"recall": {"everything": 0.99}, "ratio": {"everything": 1.25}}}}},
              "on_paper": {"vectors, MiB": 4883.0}},
    "gpu": {"card": "a card", "onnxruntime_gpu": "1.32.0", "left_out": ["batches of 64"],
            "checks": [{"items": 1000, "dtype": "float16", "what": "nodes on the CPU", "found": 0, "holds": True}],
            "times": [{"items": 1000, "dtype": "float16", "graphs": True, "batch": 8, "p50_ms": 0.5, "p99_ms": 0.75,
                       "lists_per_s": 16_000.0}]},
    "start": {"ready_s": [1.0, 1.2, 1.1], "resident_mib": [100.0], "private_mib": [80.0]},
    "soak": {"capacity": {"rate": 400.0}, "minutes": 5.0, "users": 10, "resident_mib": [100.0, 101.0], "sample_s": 2.0,
             "run": {"offered_rate": 280.0, "requests": 84_000, "errors": {},
                     "routes": {"/recommend": latency(1, 2, 3)},
                     "rungs": {"full": {"share": 1.0, **latency(1.0, 2.0)}},
                     "generator": {"cpu_share": 0.05, "late_share": 0.001}}},
    "wrk": {"method": "A closed loop.", "rows": [{"what": "wrk", "rate": 300.0, "p50_ms": 2.0, "p99_ms": 9.0}]},
}  # fmt: skip


def test_every_section_is_drawn_from_its_file(tmp_path: Path) -> None:
    for name, payload in FOUND.items():
        results.save(name, payload, command=f"measure {name}", folder=tmp_path)
    results.record(tmp_path / "engine.json", results.row("1 cpu", 1.4, "×", "measure cpu", at_most=1.5))
    text = draw.render(draw.PERFORMANCE, tmp_path)
    assert tables.NOT_YET not in text
    for expected in (
        "1.4 × | ≤ 1.5 | yes", "`measure cpu`", "| theirs | encode + decode | 200 | 3 × |", "cannot: exclude items",
        "one at a time", "| decode p50, ms | 1 | 1.3 |",
        "| ours, level 1 | 20 | 30 |", "| 2,000 events | 2.1 | 520 |", "84,000 requests", "0 errors",
        "| ready, s | 1.1 | 1 … 1.2 |", "| wrk | 300 |", "After ÷ before: 0.5, 95 % interval 0.4 to 0.6",
        "| round 1 | 500 | 900 |", "In a batch ÷ by itself: 0.25", "**10,000 items**, 128 cells", "Card: a card",
    ):  # fmt: skip
        assert expected in text, expected


def test_each_criterion_names_its_command_by_number() -> None:
    rows = [{"criterion": name, "value": 1.0, "unit": "s", "limit": None, "holds": None, "date": "", "command": command}
            for name, command in (("a", "load"), ("b", "scale --all"), ("c", "load"))]  # fmt: skip
    lines = tables.criteria(rows).splitlines()
    assert lines[-2:] == ["1. `load`", "2. `scale --all`"]
    assert [line.split("|")[-2].strip() for line in lines[2:5]] == ["1", "2", "1"]


def test_plots_are_the_same_bytes_each_time_and_those_of_nothing_go(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots = draw_plots.wanted(FOUND)
    (tmp_path / "old.svg").write_text("")
    first = {path.name: path.read_bytes() for path in draw_plots.draw(plots, tmp_path)}
    again = {path.name: path.read_bytes() for path in draw_plots.draw(plots, tmp_path)}
    assert first == again
    assert {path.name for path in tmp_path.glob("*")} == set(first)
    assert {"peers.svg", "scale.svg", "cells.svg", "k.svg", "batch.svg", "soak.svg", "memory.svg"} == set(first)


def test_drawing_the_text_takes_no_matplotlib() -> None:
    code = "import sys, loadtests.draw; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("file", sorted(results.RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_no_recorded_command_names_a_folder_of_the_machine(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.findall(r'"command": "[^"]* /[^"]*"', text) == []
