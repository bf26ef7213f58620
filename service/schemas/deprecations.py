"""What is deprecated: one registry, from which headers, metric, OpenAPI document and reference are made.

    declared in release N    it works as before; answers to requests that use it have Deprecation, Sunset and Link
    removed in N + 2         `gpt4rec_deprecated_uses_total` has said meanwhile who still uses it

Nothing is looked at while the registry is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Any

from pydantic import BaseModel

# Releases in which something deprecated works on: that which declares it, and one more.
RELEASES = 2
_NAME_MAX = 64


@dataclass(frozen=True, slots=True)
class BodyField:
    """A member of a request body, or of an object in one. A request uses it that sends it, whatever its value."""

    model: type[BaseModel]
    name: str


@dataclass(frozen=True, slots=True)
class AnswerField:
    """A member of an answer. Nobody can see who reads it, so every caller of the operation counts.

    Attributes:
        model: The schema that has the member.
        name: Of the member.
        method: Of the operation.
        path: Of the operation, as in the document: `/items/{item_id}/similar`.
    """

    model: type[BaseModel]
    name: str
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path.

    Attributes:
        method: In capitals.
        path: As in the document, without the version.
        version: The version that is deprecated: `/v1`, or "" for the path without one; None for both.
        query: The parameter of the query that is deprecated; None for the operation itself.
    """

    method: str
    path: str
    version: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecated:
    """Something that will stop working.

    Attributes:
        name: Label of the metric: `recommend.scene`.
        what: What it is.
        since: When it was deprecated.
        sunset: When it stops working at the earliest.
        declared_in: The release that deprecates it: `1.4.0`.
        removed_in: The release that removes it, at least two minor releases, or a major one, later.
        instead: What to use, in a sentence.
        page: Where that is described: a path of this service, or an address.
    """

    name: str
    what: BodyField | AnswerField | Operation
    since: date
    sunset: date
    declared_in: str
    removed_in: str
    instead: str
    page: str = "/docs"

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _NAME_MAX:
            raise ValueError(f"the name of something deprecated has 1 to {_NAME_MAX} characters, unlike {self.name!r}")
        if self.sunset <= self.since:
            raise ValueError(f"{self.name} would stop working before it was deprecated; set a later `sunset`")
        declared, removed = _release(self.declared_in), _release(self.removed_in)
        if (removed[0] == declared[0] and removed[1] < declared[1] + RELEASES) or removed[0] < declared[0]:
            raise ValueError(
                f"{self.name} would be removed in {self.removed_in}, too soon after {self.declared_in}; "
                f"it has to work for {RELEASES} releases"
            )


class Deprecations:
    """The registry.

    Args:
        entries: What is deprecated.

    Raises:
        ValueError: Two entries have one name, or a body or answer has no member of this name.
    """

    def __init__(self, entries: Iterable[Deprecated] = ()) -> None:
        self.entries = tuple(entries)
        if len({one.name for one in self.entries}) < len(self.entries):
            raise ValueError("two entries of the registry of deprecations have one name; rename one")
        for one in self.entries:
            if isinstance(one.what, BodyField | AnswerField) and one.what.name not in one.what.model.model_fields:
                raise ValueError(f"{one.name}: {one.what.model.__name__} has no member {one.what.name}")
        self._fields: dict[type[BaseModel], tuple[tuple[str, Deprecated], ...]] = {}
        self._operations: dict[tuple[str, str], list[Deprecated]] = {}
        for one in self.entries:
            match one.what:
                case BodyField(model, name):
                    self._fields[model] = (*self._fields.get(model, ()), (name, one))
                case AnswerField(_, _, method, path) | Operation(method, path):
                    self._operations.setdefault((method, path), []).append(one)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def in_body(self, body: BaseModel) -> Iterable[Deprecated]:
        """Yields what a body uses, each once for each object that has it."""
        for model, members in self._fields.items():
            if isinstance(body, model):
                yield from (one for name, one in members if name in body.model_fields_set)
        for name in body.model_fields_set:
            yield from self._in_value(getattr(body, name))

    def _in_value(self, value: Any) -> Iterable[Deprecated]:
        if isinstance(value, BaseModel):
            yield from self.in_body(value)
        elif isinstance(value, list | tuple):
            for one in value:
                yield from self._in_value(one)
        elif isinstance(value, Mapping):
            for one in value.values():
                yield from self._in_value(one)

    def in_call(self, method: str, path: str, version: str, query: Iterable[str]) -> Iterable[Deprecated]:
        """Yields what a call uses beside its body.

        Args:
            method: Of the operation.
            path: Of its route, as in the document.
            version: `/v1`, or "" if the caller named none.
            query: Names of the parameters in the query.
        """
        for one in self._operations.get((method, path), ()):
            what = one.what
            if isinstance(what, Operation) and (
                what.version not in (None, version) or (what.query is not None and what.query not in query)
            ):
                continue
            yield one


@dataclass(slots=True)
class Uses:
    """What one request uses of what is deprecated.

    Attributes:
        registry: What is deprecated.
        found: The entries found so far, by name.
    """

    registry: Deprecations
    found: dict[str, Deprecated] = field(default_factory=dict)

    def add(self, entries: Iterable[Deprecated]) -> None:
        """Adds entries."""
        self.found.update((one.name, one) for one in entries)

    def headers(self, prefix: str) -> list[tuple[bytes, bytes]]:
        """Returns the headers of RFC 9745 and RFC 8594: the earliest dates, and each page once; none without entries.

        Args:
            prefix: Of the paths of this service, as the caller reaches it.
        """
        if not self.found:
            return []
        since = _midnight(min(one.since for one in self.found.values()))
        sunset = _midnight(min(one.sunset for one in self.found.values()))
        pages = dict.fromkeys(one.page for one in self.found.values())
        return [
            (b"deprecation", b"@%d" % int(since.timestamp())),
            (b"sunset", format_datetime(sunset, usegmt=True).encode("ascii")),
            *((b"link", _link(f"{prefix}{page}" if page.startswith("/") else page)) for page in pages),
        ]


# Of the request that is being answered; bodies are parsed by functions that do not see it. Set by the request gate
# where anything is deprecated.
USES: ContextVar[Uses | None] = ContextVar("uses", default=None)


def note(body: BaseModel) -> None:
    """Notes what a parsed body uses, for the request that is being answered."""
    uses = USES.get()
    if uses is not None:
        uses.add(uses.registry.in_body(body))


def _release(text: str) -> tuple[int, int]:
    major, minor, *_ = (*text.split("."), "")
    if not (major.isdigit() and minor.isdigit()):
        raise ValueError(f"{text!r} is not a release; write it as 1.4.0")
    return int(major), int(minor)


def _link(page: str) -> bytes:
    return f'<{page}>; rel="deprecation"; type="text/html"'.encode("ascii")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


# What is deprecated today: nothing.
DEPRECATIONS = Deprecations()
