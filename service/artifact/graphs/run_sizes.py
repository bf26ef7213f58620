"""How wide the decoder's runs of an artefact are: what its export measured (manifest entry `search`, format 1).

A run without a measurement has a *planned* size, which follows from the policy and the length of the list alone. For
some of these sizes the export found a smaller one whose lists are the same. An artefact without the entry, such as one
of before, runs at the planned sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

ENTRY = "search"
FORMAT = 1
# The most nodes and the most candidates of a run; a manifest that names more is refused.
_MOST = 4096


class Size(NamedTuple):
    """Size of a run: the nodes kept at every level, and the candidates that join the last."""

    width: int
    joined: int


@dataclass(frozen=True, slots=True)
class RunSizes:
    """The measured size of runs, by whether lists are drawn and by planned size.

    Attributes:
        deterministic: For lists by score.
        sampled: For drawn lists.
    """

    deterministic: Mapping[Size, Size] = field(default_factory=dict)
    sampled: Mapping[Size, Size] = field(default_factory=dict)

    def of(self, planned: Size, *, sampled: bool) -> Size:
        """Returns the size of a run that is planned with this one; the same where nothing smaller was found."""
        return (self.sampled if sampled else self.deterministic).get(planned, planned)

    def to_json(self) -> dict[str, Any]:
        """Returns the part of the manifest's entry that lists depend on."""
        return {
            "sizes": [
                {"sampled": sampled, "planned": list(planned), "width": size.width, "joined": size.joined}
                for sampled, found in ((False, self.deterministic), (True, self.sampled))
                for planned, size in sorted(found.items())
            ]
        }

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """Reads the entry `search` of a manifest; None, as in an artefact of before, says nothing.

        Raises:
            ValueError: It is no such entry, or of another format.
        """
        if entry is None:
            return cls()
        if not isinstance(entry, Mapping) or entry.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        try:
            return cls(*(dict(_sizes(entry["sizes"], sampled=sampled)) for sampled in (False, True)))
        except (LookupError, TypeError) as error:
            raise ValueError(f"its sizes are no list of planned and measured sizes ({error!r})") from error


def _sizes(rows: Any, *, sampled: bool) -> Iterable[tuple[Size, Size]]:
    for row in rows:
        if row["sampled"] is sampled:
            yield _size(*row["planned"]), _size(row["width"], row["joined"])


def _size(width: Any, joined: Any) -> Size:
    for number in (width, joined):
        if type(number) is not int or not 1 <= number <= _MOST:
            raise ValueError(f"a size of {number!r} is not between 1 and {_MOST}")
    return Size(width, joined)
