"""The tables of fail-overs and of the restore drill in `docs/fleet-figures.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtests.draw.tables import by_command, markdown

Results = Mapping[str, Any]

_COLUMNS = (
    "fail-over", "durability", "events acknowledged", "lost", "beyond the promise", "twice", "refused", "over, s",
    "lists", "without history", "5xx", "unanswered", "late, %",
)  # fmt: skip


def failovers(found: Results) -> str:
    """Draws a row for each fail-over, and below what was done and promised."""
    rows: Mapping[str, Results] = found["rows"]
    table = markdown(_COLUMNS, [_row(one) for one in rows.values()])
    told: dict[tuple[str, str], list[Results]] = {}
    for one in rows.values():
        told.setdefault((one["kind"], one["happening"]), []).append(one)
    return "\n\n".join([table, "\n".join(_told(*place, ones) for place, ones in told.items()), by_command(found)])


def _row(one: Results) -> list[Any]:
    beyond = f"**{one['beyond']}**" if one["beyond"] else 0
    return [
        f"{one['kind']}: {one['happening']}", one["durability"], one["events"], one["lost"], beyond, one["twice"],
        one["refused"], one["refused_s"], one["lists"], one["without_history"], one["5xx"], one["unanswered"],
        one["late_percent"],
    ]  # fmt: skip


def _told(kind: str, happening: str, ones: list[Results]) -> str:
    """Says what was done, what is promised with each durability, and when lost events had been acknowledged."""
    said = f"- *{kind}: {happening}*. {ones[0]['text']}."
    for one in ones:
        said += f" `{one['durability']}`: {one['promise']}."
        if one["lost"]:
            said += f" Those lost were acknowledged {_when(one['lost_from_s'])} to {_when(one['lost_to_s'])}."
        said += "".join(f" ({note})" for note in one["notes"])
    return said


def _when(seconds: float) -> str:
    return f"{abs(seconds):.2f} s {'before' if seconds < 0 else 'after'} it began"


def restores(found: Results) -> str:
    """Draws a row for each drill."""
    columns = ("drill", "events before the copy", "of these lost", "events after it", "of these lost",
               "keys in the copy", "copy, s", "back after, s", "5xx of lists")  # fmt: skip
    rows = [
        [name, one["before"], one["lost_before"], one["after"], one["lost_after"], one["keys"], one["copied_s"],
         one["back_s"], one["5xx"]]
        for name, one in found["drills"].items()
    ]  # fmt: skip
    return "\n\n".join([markdown(columns, rows), by_command(found)])


def versions(found: Results) -> str:
    """Draws what became of the same rows on each server."""
    columns = ("server", "fail-over", "events acknowledged", "lost", "beyond the promise", "refused", "lists", "5xx")
    rows = [
        [one["server"], one["row"], one["events"], one["lost"], one["beyond"], one["refused"], one["lists"], one["5xx"]]
        for _, one in sorted(found["rows"].items())
    ]
    return "\n\n".join([markdown(columns, rows), by_command(found)])


SECTIONS: dict[str, Callable[[Results], str]] = {
    "fleet_failover": failovers,
    "fleet_versions": versions,
    "fleet_restore": restores,
}
