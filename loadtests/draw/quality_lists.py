"""List qualities, fairness and segments in docs/quality.md and the model card. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.draw.intervals import difference
from loadtests.draw.tables import by_command, markdown

Results = Mapping[str, Any]

# Measure → its heading and its number format.
MEASURES: Mapping[str, tuple[str, str]] = {
    "recall@10": ("recall@10", ".3f"),
    "ndcg@10": ("NDCG@10", ".3f"),
    "intra": ("intra-list", ".3f"),
    "inter": ("inter-list", ".3f"),
    "novelty": ("novelty, bits", ".2f"),
    "tail": ("tail share", ".3f"),
    "coverage": ("coverage", ".3f"),
    "entropy": ("entropy, bits", ".2f"),
    "gini": ("Gini", ".3f"),
    "js_asked": ("JS, asked", ".3f"),
    "js_trained": ("JS, trained", ".3f"),
    "kl_asked": ("KL, asked", ".2f"),
}
COLOURS = {"beam": "#1f4e79", "top-p": "#b06a2c", "temperature": "#3c7d3c"}


def lists(found: Results) -> str:
    """Draws, for each data set, every strategy, the shipped ones against the reference, and each segment."""
    parts = []
    for data, part in found["parts"].items():
        parts += [
            f"### {data}",
            f"{part['users']:,} users, {part['items']:,} items, {part['seeds']} seeds: means over the seeds, for "
            "NDCG@10 with half the width of the 95 % interval.",
            _strategies(part),
            f"Difference to `{part['reference']}`, each list compared with that of the same user:",
            _compared(part),
            "By segment: the segment's own strategy, the reference and item-CF, for the users of the segment.",
            _segments(part),
        ]
    return "\n\n".join([*parts, by_command(found)])


def _known(part: Results) -> list[str]:
    some = part["strategies"][part["reference"]]
    return [measure for measure in MEASURES if measure in some]


def _figures(figures: Results, measures: list[str]) -> list[str]:
    return [_figure(figures.get(measure), measure) for measure in measures]


def _figure(figure: Results | None, measure: str) -> str:
    if figure is None:
        return "–"
    half = figure["half_width"]
    wide = f" ± {half:.3f}" if measure == "ndcg@10" and half is not None else ""
    return f"{figure['mean']:{MEASURES[measure][1]}}{wide}"


def _strategies(part: Results) -> str:
    measures = _known(part)
    rows = [
        [f"**{name}**" if name in part["shipped"] else name, *_figures(figures, measures)]
        for name, figures in part["strategies"].items()
    ]
    return markdown(["strategy", *(MEASURES[measure][0] for measure in measures)], rows)


def _compared(part: Results) -> str:
    """Draws a row for each strategy; a star marks what Holm's correction leaves significant at 5 %."""
    by_name: dict[str, dict[str, Results]] = {}
    for row in part["compared"]:
        by_name.setdefault(row["name"], {})[row["measure"]] = row
    measures = [m for m in MEASURES if any(m in rows for rows in by_name.values())]
    rows = [[name, *(difference(rows[m], 3) if m in rows else "–" for m in measures)] for name, rows in by_name.items()]
    return markdown(["strategy", *(MEASURES[measure][0] for measure in measures)], rows)


def _segments(part: Results) -> str:
    measures = _known(part)
    rows = [
        [
            f"{name}, {one['users']:,} users",
            way + (" (own)" if way == one["strategy"] else ""),
            *_figures(figures, measures),
        ]
        for name, one in part["segments"].items()
        for way, figures in one["figures"].items()
    ]
    return markdown(["segment", "strategy", *(MEASURES[measure][0] for measure in measures)], rows)


def fairness(found: Results) -> str:
    """Draws recall by group of users and of items: the served lists beside item-CF."""
    parts = []
    for data, part in found["parts"].items():
        rows = [
            [one["kind"], one["group"], f"{one['questions']:,}", f"{one['recall@10']:.3f}", f"{one['item_cf']:.3f}",
             difference(one, 3)]
            for one in part["groups"]
        ]  # fmt: skip
        columns = ["group by", "group", "questions", "recall@10 as served", "item-CF", "difference"]
        parts += [f"{data}, lists by the shipped policies:", markdown(columns, rows), _apart(part["apart"])]
    return "\n\n".join([*parts, by_command(found)])


def _apart(rows: Sequence[Results]) -> str:
    """Says how far apart groups of users lie, and how often random groups lie as far apart."""
    return "\n".join(
        f"- By {row['kind']}, recall@10 differs by {row['apart']:.3f}, lowest for {row['lowest']} and highest for "
        f"{row['highest']}; random groups of these sizes differ as much with p = {row['p_holm']:.3g} (Holm)."
        for row in rows
    )


def lists_and_fairness(found: Results) -> str:
    """Draws the section of docs/quality.md on list qualities, with fairness below."""
    return f"{lists(found)}\n\n### By group of users and of items\n\n{fairness(found)}"


def segments(found: Results) -> str:
    """Draws, for each data set and segment, the default strategy, its objective and the verdict."""
    parts = []
    for data, part in found["parts"].items():
        sizes = ", ".join(f"{name} {size:,}" for name, size in part["sizes"].items())
        parts += [f"### Segments of {data}", f"{part['users']:,} users, {part['seeds']} seeds: {sizes}."]
        rows = [_segment(name, one) for name, one in part["judged"].items()]
        columns = ["segment, users", "objective", "chosen on validation", "as good", "default", "NDCG@10",
                   "objective's figure", "NDCG@10 above the floor", "beaten by", "holds"]  # fmt: skip
        parts.append(markdown(columns, rows))
    return "\n\n".join([*parts, by_command(found)])


def _segment(name: str, one: Results) -> list[Any]:
    objective, own, chosen = one["objective"], one["points"][one["default"]], one["chosen"]
    measure, floor = objective["measure"], one["above_floor"]
    above = f"{floor['difference']:+.3f} ({floor['low']:+.3f} … {floor['high']:+.3f})"
    others = [rival for rival in chosen["as_good"] if rival != chosen["best"]]
    return [
        f"{name}, {one['users']:,}", f"{MEASURES[measure][0]}: {objective['why']}", chosen["best"],
        ", ".join(others) or "none", one["default"], f"{own['ndcg@10']:.3f}", f"{own[measure]:.3f}",
        f"{above}, floor {objective['floor']:g} × the best" if objective["floor"] else "–",
        ", ".join(one["beaten_by"]) or "none", one["holds"],
    ]  # fmt: skip


def frontier(part: Results) -> Callable[[Any], None]:
    """Returns what plots NDCG@10 over diversity, a line for each family of strategies."""

    def draw(axes: Any) -> None:
        spread = "intra" if "intra" in part["strategies"][part["reference"]] else "inter"
        for family, colour in COLOURS.items():
            points = sorted(_of_family(part["strategies"], family), key=lambda point: point[0])
            xs = [one[spread]["mean"] for _, one in points]
            ys = [one["ndcg@10"]["mean"] for _, one in points]
            axes.plot(xs, ys, "o-", color=colour, label=family)
            for (setting, _), x, y in zip(points, xs, ys, strict=True):
                if family != "beam":
                    axes.annotate(f"{setting:g}", (x, y), fontsize=6)
        for name in ("item-CF", "as the policies say"):
            one = part["strategies"][name]
            axes.plot([one[spread]["mean"]], [one["ndcg@10"]["mean"]], "s", label=name)
        axes.set_xlabel(f"{MEASURES[spread][0]} diversity of ten items")
        axes.set_ylabel("NDCG@10")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)

    return draw


def _of_family(strategies: Results, family: str) -> list[tuple[float, Results]]:
    """Returns the setting and the figures of each strategy of a family with one setting; greedy is a beam of one."""
    return [
        (float(setting), one)
        for name, one in strategies.items()
        for of, _, setting in [("beam 1" if name == "greedy" else name).partition(" ")]
        if of == family and "," not in setting
    ]


def plots(found: Results) -> dict[str, Callable[[Any], None]]:
    """Returns the frontier plot of each data set, by its name."""
    return {f"frontier-{data}": frontier(part) for data, part in found["parts"].items()}
