"""What the states of histories depend on: the encoder's graph, and the item rows that it reads.

Two models with the same encoder version have the same states, so a model that keeps the encoder of the one before it
keeps every user's state. New items get rows of their own behind those of the old ones. Each such *step* has a digest
of everything up to it, and a state names the first step that has all items of its history. So a state holds in every
model that has that step, unless a later step knows an item of its history that was unknown when it was encoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import IntArray

FORMAT = 1
# Steps that a version lists; the states of those before them are encoded anew.
STEPS_MAX = 64
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Step:
    """The encoder after new items came.

    Attributes:
        items: Items that it knows.
        digest: Digest of the encoder and the rows of these items.
    """

    items: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class EncoderVersion:
    """The version of an encoder.

    Attributes:
        name: Part of the key of each state.
        steps: The steps, oldest first; at least one.
    """

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def alone(cls, model_version: str, n_items: int) -> Self:
        """Returns the version of a model whose artefact names none: its states belong to it alone."""
        return cls(model_version, (Step(n_items, _short(hashlib.sha256(model_version.encode()))),))

    @classmethod
    def of(
        cls,
        graph: Path,
        item_ids: Sequence[str],
        table: npt.NDArray[np.float32],
        counts: Sequence[int],
        attributes: IntArray | None = None,
    ) -> Self:
        """Computes the version of an encoder.

        Args:
            graph: `encoder.onnx`; it has everything that the encoder reads but the item rows and their attributes.
            item_ids: [N] ids of the items, in index order.
            table: [N + 2, d] item table, with the rows of the unknown item and the start token at its end.
            counts: Numbers of items that the encoder knew at each step, ascending; the last is N.
            attributes: [N + 2, slots] what the encoder reads beside each item; None if it reads nothing.
        """
        with graph.open("rb") as file:
            running = hashlib.file_digest(file, "sha256")
        running.update(np.ascontiguousarray(table[len(item_ids) :]).tobytes())
        steps, first, name = [], 0, ""
        for count in counts:
            running.update("\n".join(item_ids[first:count]).encode())
            running.update(np.ascontiguousarray(table[first:count]).tobytes())
            running.update(b"" if attributes is None else np.ascontiguousarray(attributes[first:count]).tobytes())
            steps.append(Step(count, _short(running)))
            name, first = name or running.hexdigest()[:16], count
        return cls(name, tuple(steps[-STEPS_MAX:]))

    def step_of(self, item_ids: Iterable[str], index: Mapping[str, int]) -> bytes:
        """Returns the digest of the first step that has all items of a history.

        Args:
            item_ids: The items of its events.
            index: Index of each item of the catalogue. Items that no step has count as unknown.
        """
        if len(self.steps) == 1:
            return self.steps[0].digest
        newest = max(self._known(item_ids, index), default=-1)
        return next(step.digest for step in self.steps if newest < step.items)

    def holds(self, digest: bytes, item_ids: Iterable[str], index: Mapping[str, int]) -> bool:
        """Returns whether a state is what this encoder makes of the history.

        Args:
            digest: The step that the state names.
            item_ids: The items of the events that it covers.
            index: Index of each item of the catalogue.
        """
        known = next((step.items for step in self.steps if step.digest == digest), None)
        if known is None:
            return False
        return len(self.steps) == 1 or all(item < known for item in self._known(item_ids, index))

    def later(self, one: bytes, other: bytes) -> bytes:
        """Returns the digest of the later of two steps; the first if the second is unknown."""
        places = {step.digest: place for place, step in enumerate(self.steps)}
        return max(one, other, key=lambda digest: places.get(digest, -1))

    def _known(self, item_ids: Iterable[str], index: Mapping[str, int]) -> Iterator[int]:
        """Yields the indices of items that have a row of their own in the newest step."""
        n = self.steps[-1].items
        return (item for item in map(index.get, item_ids) if item is not None and item < n)

    def to_json(self) -> dict[str, Any]:
        """Returns the version as the manifest keeps it."""
        return {
            "format": FORMAT,
            "version": self.name,
            "steps": [[step.items, step.digest.hex()] for step in self.steps],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned.

        Raises:
            ValueError: The entry has another format, or is damaged.
        """
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"it has format {value['format']!r}, this service reads {FORMAT}")
            steps = tuple(Step(int(items), bytes.fromhex(digest)) for items, digest in value["steps"])
            name = str(value["version"])
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"it is damaged: {error!r}") from error
        counts = [step.items for step in steps]
        if not name or not steps or counts != sorted(counts) or any(len(s.digest) != DIGEST_BYTES for s in steps):
            raise ValueError("it is damaged")
        return cls(name, steps)


def _short(running: hashlib._Hash) -> bytes:
    return running.digest()[:DIGEST_BYTES]
