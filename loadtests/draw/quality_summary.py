"""The summary at the top of `docs/quality.md`, from the recorded figures. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from loadtests.draw import tables
from loadtests.draw.intervals import SIGNIFICANT, difference
from loadtests.draw.quality_cold import NAMES
from loadtests.draw.quality_lists import MEASURES
from loadtests.draw.quality_strict import counted, criteria, published
from loadtests.draw.tables import NOT_YET, limits, markdown
from loadtests.quality import peer_runs
from loadtests.quality.criteria import judged, named
from loadtests.quality.protocols import ordered, reading, split_said

Rows = Sequence[Mapping[str, Any]]
Files = Mapping[str, Mapping[str, Any] | None]

ACCURACY = {"recall@10": "recall@10", "ndcg@10": "NDCG@10"}
POLICIES = "as the policies say"
SHOWN = ("ndcg@10", "intra", "inter", "novelty", "tail")


def ranking(_: Rows, files: Files) -> str:
    """Draws the served lists beside tuned item-CF, a line for each data set and split, the strict one first."""
    lines = []
    for label, part in _main_parts(files):
        served, item_cf = part["means"]["blend"], part["means"]["item_cf"]
        cells = [
            [f"{served[m]['mean']:.4f}", f"{item_cf[m]['mean']:.4f}", _ratio(served, item_cf, m)] for m in ACCURACY
        ]
        lines.append([reading(label).name, split_said(label, part), *cells[0], *cells[1]])
    columns = ["data", "split", "recall@10", "item-CF", "ratio", "NDCG@10", "item-CF", "ratio"]
    return markdown(columns, lines) if lines else NOT_YET


def _main_parts(files: Files) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the parts that have means; what was measured before the ranker only where nothing newer was."""
    parts = (files.get("quality_ranking") or {"parts": {}})["parts"]
    newer = {reading(label).name for label in parts if reading(label).place == 0}
    return [
        (label, parts[label])
        for label in ordered(list(parts))
        if "means" in parts[label] and not (reading(label).place == 1 and reading(label).name in newer)
    ]


def _ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], measure: str) -> str:
    return f"{ours[measure]['mean'] / theirs[measure]['mean']:.2f}" if theirs[measure]["mean"] else "–"


def peers(_: Rows, files: Files) -> str:
    """Draws the served lists beside RecTools' SASRec on the same data and split, and the speed of both trainings."""
    ranked, trained, speed = (files.get(f"quality_{name}") for name in ("ranking", "peers", "speed"))
    if ranked is None or trained is None:
        return NOT_YET
    lines = []
    runs = list(trained["runs"].values())
    for data, held_out in peer_runs.held_out_of(runs):
        found = peer_runs.ours(ranked["parts"], data, held_out)
        if found is None:
            continue
        tests = [run["test"] for run in peer_runs.strongest(runs, data, held_out)]
        cells = []
        for measure in ACCURACY:
            ours, theirs = found[1]["blend"][measure]["mean"], fmean(test[measure] for test in tests)
            cells += [f"{ours:.4f}", f"{theirs:.4f}", f"{ours / theirs:.2f}"]
        lines.append([f"{data}, {split_said(found[0], ranked['parts'][found[0]])}", *cells])
    table = markdown(["data, split", "recall@10", "RecTools", "ratio", "NDCG@10", "RecTools", "ratio"], lines)
    if speed is None:
        return table
    seconds = {name: epoch["median"] for name, epoch in speed["epochs"].items()}
    times = seconds["sasrec, RecTools"] / seconds["gpt4rec"]
    return (
        f"{table}\n\nAn epoch takes gpt4rec {seconds['gpt4rec']:.1f} s of processor time on one thread and RecTools' "
        f"SASRec {seconds['sasrec, RecTools']:.1f} s: {times:.1f} times as fast."
    )


def policies(_: Rows, files: Files) -> str:
    """Draws what the shipped policies give up and gain against the reference strategy, a line for each data set."""
    lines, reference = [], ""
    for data, part in (files.get("quality_lists") or {"parts": {}})["parts"].items():
        reference = part["reference"]
        by_measure = {row["measure"]: row for row in part["compared"] if row["name"] == POLICIES}
        lines.append([data, *(difference(by_measure[m], 3) if m in by_measure else "–" for m in SHOWN)])
    if not lines:
        return NOT_YET
    return markdown([f"shipped policies less `{reference}`", *(MEASURES[measure][0] for measure in SHOWN)], lines)


def cold(_: Rows, files: Files) -> str:
    """Draws recall@10 of cold and warm items, a line for each way to know an item."""
    lines = [
        [f"{data}: {NAMES[name]}", *(f"{kinds[kind]['recall@10']['mean']:.4f}" for kind in ("cold", "warm"))]
        for data, part in (files.get("quality_cold") or {"parts": {}})["parts"].items()
        for name, kinds in part["means"].items()
    ]
    return markdown(["items known by", "recall@10, cold items", "recall@10, warm items"], lines) if lines else NOT_YET


def missed(rows: Rows, files: Files) -> str:
    """Draws how many criteria hold, every one that does not, and where a simpler method is ahead."""
    behind = [*_behind_item_cf(files), *_behind_repeat_purchase(files), *_groups_behind(files), *_not_told_apart(files)]
    other = limits([row for row in rows if not named(row["criterion"])])
    parts = [_of_criteria(rows), f"Further figures: {other[0].lower()}{other[1:]}" if other else ""]
    parts.append("\n".join(f"- {text}" for text in behind))
    return "\n\n".join(part for part in parts if part) or NOT_YET


def _of_criteria(rows: Rows) -> str:
    """Says how many of the criteria below are met, and lists the missed ones."""
    failed = [
        f"- {one.name}: {row['value']:.4f}, asked {one.asked}."
        for one, row in judged(rows)
        if one.limit and row is not None and not row["holds"]
    ]
    return "\n".join([counted(rows), *(["", *failed] if failed else [])])


def _behind_item_cf(files: Files) -> list[str]:
    lines = []
    for label, part in _main_parts(files):
        named = f"*{reading(label).name}, {split_said(label, part)}*"
        for measure, name in ACCURACY.items():
            theirs, ours = (part["means"][way][measure]["mean"] for way in ("item_cf", "blend"))
            if theirs > ours:
                lines.append(f"{named}: tuned item-CF has the higher {name}, {theirs:.4f} against {ours:.4f}.")
    return lines


def _behind_repeat_purchase(files: Files) -> list[str]:
    ablations = (files.get("quality_conditions") or {"ablations": {}})["ablations"]
    return [
        f"*complete-journey, {row['questions']:,} questions*, items of the history kept in the lists: repeat purchase "
        f"has the higher recall@10, {row['recall@10']['without']:.4f} against {row['recall@10']['with']:.4f}."
        for name, rows in ablations.items()
        if name.startswith("journey-")
        for row in rows
        if row["label"] == "against repeat purchase, nothing known" and row["recall@10"]["high"] < 0
    ]


def _groups_behind(files: Files) -> list[str]:
    return [
        f"*{data}*, {group['kind']}: {group['group']}: tuned item-CF has the higher recall@10, "
        f"{group['item_cf']:.3f} against {group['recall@10']:.3f}."
        for data, part in (files.get("quality_lists") or {"parts": {}})["parts"].items()
        for group in part["groups"]
        if group["difference"] < 0 and group.get("p_holm", 1.0) < SIGNIFICANT
    ]


def _not_told_apart(files: Files) -> list[str]:
    """Names the systems from which the table of encoders cannot tell the model."""
    lines = []
    for part in (files.get("quality_variants") or {"parts": {}})["parts"].values():
        close = [
            line["system"]
            for line in part.get("table") or []
            if line["system"] != "gpt4rec" and line["behind"]["ndcg@10"].get("p_holm", 1.0) >= SIGNIFICANT
        ]
        if close:
            lines.append(
                f"*{part['data']}*, {part['minutes']:g} min of training: NDCG@10 does not tell gpt4rec from "
                f"{', '.join(close)} (paired bootstrap, Holm)."
            )
    return lines


def others(rows: Rows, _: Files) -> str:
    """Draws the rows with a limit that belong to no criterion of `loadtests.quality.criteria`."""
    return tables.criteria([row for row in rows if row["limit"] is not None and not named(row["criterion"])])


SUMMARY: dict[str, Callable[[Rows, Files], str]] = {
    "summary_ranking": ranking,
    "summary_peers": peers,
    "summary_policies": policies,
    "summary_cold": cold,
    "summary_missed": missed,
    "strict_criteria": criteria,
    "other_limits": others,
    "published": published,
}
