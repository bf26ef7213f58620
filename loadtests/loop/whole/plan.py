"""How large the loop is, and what is done of it: kept in a file after each part, so that an interrupted run goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from loadtests.loop import criteria
from service.common.atomic_files import write_aside
from service.common.errors import ServiceError

FORMAT = 1
# Of the file of figures.
NAME = "loop_whole"


class ProgressError(ServiceError):
    """The kept progress is of another run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the loop is.

    Attributes:
        users: Simulated users.
        items: Items of the catalogue.
        cycles: Cycles; tastes drift after half of them.
        lists: Lists of each user in a cycle; half of the users may see the last one in the canary.
        past: Lists of each user before the service begins.
        trial: Lists of each user of one half before the experiment, and of the other half in it.
        bots: Programs that click on everything.
        epochs: Most epochs of the first training; an increment has half of them.
        seed: Seed of everything random.
    """

    users: int = 3000
    items: int = 600
    cycles: int = criteria.WHOLE_CYCLES
    lists: int = 1
    past: int = 3
    trial: int = 3
    bots: int = 5
    epochs: int = 8
    seed: int = 0


@dataclass(slots=True)
class Progress:
    """What is done.

    Attributes:
        plan: The plan.
        folder: Work folder.
        parts: By the name of each part that has begun: when it began and ended (Unix milliseconds), and what it
            brought.
    """

    plan: Plan
    folder: Path
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, plan: Plan) -> Self:
        """Reads the progress of a work folder, or begins anew where there is none.

        Raises:
            ProgressError: It has another plan.
        """
        file = folder / "progress.json"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            return cls(plan, folder)
        kept = orjson.loads(file.read_bytes())
        if kept.get("format") != FORMAT or kept["plan"] != asdict(plan):
            raise ProgressError(f"{folder} holds a run with other settings: give them again, or --fresh to begin anew")
        return cls(plan, folder, kept["parts"])

    def save(self) -> None:
        """Writes the progress."""
        content = {"format": FORMAT, "plan": asdict(self.plan), "parts": self.parts}
        write_aside(self.folder / "progress.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def begin(self, part: str, now_ms: int) -> bool:
        """Notes that a part begins; returns False if it is done already."""
        kept = self.parts.setdefault(part, {"from_ms": now_ms})
        self.save()
        return "until_ms" not in kept

    def end(self, part: str, now_ms: int, **brought: Any) -> None:
        """Notes that a part is done, and what it brought."""
        self.parts[part] |= {"until_ms": now_ms, **brought}
        self.save()

    def span(self, part: str) -> tuple[int, int]:
        """Returns when a part began and ended, Unix milliseconds."""
        return self.parts[part]["from_ms"], self.parts[part]["until_ms"]


def visits_of(number: int) -> str:
    """Returns the name of a part: the visits of a cycle, from 1."""
    return f"visits {number}"


def turn_of(number: int) -> str:
    """Returns the name of a part: `gpt4rec loop run` in a cycle, from 1, and the visits while its canary runs."""
    return f"turn {number}"
