"""The record of a list that was shown, and of what follows it, as entries of the streams (format 1).

An entry has the fields `v` (format), `s` (subject, see `subject_name`) and one of these:

    e, c      exposures: an `Exposure` as JSON, and the candidates of a drawn list (`packed`)
    e         events: an event as it was stored, as JSON
    merged    events: {"from", "to", "time_ms"}: the lists and events of a session are a user's from then on
    erased    both: the time in epoch milliseconds; everything of the subject up to then must be forgotten

The subject is the second field of every entry: erasures look for it there (`service.store.streams.log_streams`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import orjson

from service.artifact.array_types import Array, FloatArray, IntArray
from service.store.records import NewEvent, Subject
from service.store.streams.log_streams import Entry

FORMAT = "1"
# The subject of a list that was made from the events of a request alone.
NOBODY = ""


class Exposure(TypedDict):
    """A list that was shown. Names and order are those of the JSON; the columns of the files have the names too.

    Attributes:
        list_id: A ULID, which the answer carries too.
        request_id: Id of the request.
        subject: Whose list it is, as entries have it.
        time_ms: When it was made, in epoch milliseconds.
        scene: Where it was shown.
        k: Number of items asked for.
        items: [n ≤ k] item ids.
        scores: [n] float32 scores.
        log_propensities: [n] natural logarithm of the probability of each position given those above; 0 where nothing
            was drawn; None if the law is not known.
        drawn: Number of leading positions that were drawn; the others are deterministic.
        set_log_propensity: Log-probability of the items as a set, where their order was changed afterwards.
        strategy: How the model decoded it; None if no model did.
        parameters: Of the decoding: temperature, top_p, beam_width; None where they had no part.
        segment: Segment of the user.
        explored: Whether it comes from the exploration share of the segment.
        source: What scored the items.
        scorers: The signals that ranked them.
        rung: Rung of the ladder that made it.
        reason: Why it was not a higher one.
        model_version: The model.
        policies_version: Digest of the policies.
        catalogue_version: Digest of the catalogue: items and stock.
        arms: Arm of each experiment.
        filter: Filter of the request.
        excluded: Number of items that were left out.
        history_version: Version of the log that the list was made from.
        seed: Seed of the draw, be it of the items or of whether the list explores; None where neither was drawn. Lists
            of one subject and seed are one list, shown again. Null on later pages that have no drawn item.
        first_rank: Position of the first item in the list that its pages are parts of; 1 for a list from its beginning.
        asked: Number of items that the request named to be ranked; None for a choice from the catalogue.
    """

    list_id: str
    request_id: str
    subject: str
    time_ms: int
    scene: str | None
    k: int
    items: Sequence[str]
    scores: FloatArray
    log_propensities: Array | Sequence[float] | None
    drawn: int
    set_log_propensity: float | None
    strategy: str | None
    parameters: Mapping[str, float | None]
    segment: str
    explored: bool
    source: str
    scorers: Sequence[str]
    rung: str
    reason: str | None
    model_version: str
    policies_version: str
    catalogue_version: str
    arms: Mapping[str, str]
    filter: Mapping[str, Any] | None
    excluded: int
    history_version: str
    seed: int | None
    first_rank: int
    asked: int | None


def shown_entry(exposure: Exposure, candidates: bytes = b"") -> Entry:
    """Returns the entry of a list.

    Args:
        exposure: The list.
        candidates: What a drawn list was drawn from (`packed`).
    """
    body = orjson.dumps(exposure, option=orjson.OPT_SERIALIZE_NUMPY)
    plain = ("v", FORMAT, "s", exposure["subject"], "e", body)
    return (*plain, "c", candidates) if candidates else plain


def subject_name(subject: Subject | None) -> str:
    """Returns how entries name a subject: `u:` or `s:` and its id as it is stored, percent-encoded as in the keys."""
    return NOBODY if subject is None else subject.tag[1:-1]


def shard_of(name: str, shards: int) -> int:
    """Returns the number of the shard that the entries of a subject, or of a list without one, are in."""
    return zlib.crc32(name.encode()) % shards


def packed(items: IntArray, scores: FloatArray) -> bytes:
    """Packs what a list was drawn from: little-endian, uint32 n, n × uint32 index, n × float32 fused score.

    Args:
        items: [n] catalogue indices.
        scores: [n] fused scores, before the temperature.
    """
    return struct.pack("<I", len(items)) + items.astype("<u4").tobytes() + scores.astype("<f4").tobytes()


def unpacked(candidates: bytes) -> tuple[npt.NDArray[np.uint32], FloatArray]:
    """Returns the items and scores that `packed` packed.

    Raises:
        ValueError: The bytes are something else.
    """
    n = int.from_bytes(candidates[:4], "little")
    if len(candidates) != 4 + 8 * n:
        raise ValueError(f"candidates of {n} items have {4 + 8 * n} bytes, these have {len(candidates)}")
    scores = np.frombuffer(candidates, "<f4", n, 4 + 4 * n).astype(np.float32, copy=False)
    return np.frombuffer(candidates, "<u4", n, 4).astype(np.uint32, copy=False), scores


def event_entry(name: str, event: NewEvent, event_id: str, received_ms: int) -> Entry:
    """Returns the entry of an event.

    Args:
        name: The subject as entries have it.
        event: The event.
        event_id: The identity under which it is stored.
        received_ms: When it was acknowledged, in epoch milliseconds.
    """
    body: dict[str, Any] = {
        "item_id": event.item_id, "type": event.type, "time_ms": event.time_ms, "event_id": event_id,
        "value": event.value, "query": event.query, "request_id": event.request_id, "list_id": event.list_id,
        "received_ms": received_ms,
    }  # fmt: skip
    return ("v", FORMAT, "s", name, "e", orjson.dumps(body))


def merged_entry(session: str, user: str, time_ms: int) -> Entry:
    """Returns the entry that says that a session belongs to a user from now on. It is in the user's shard."""
    return ("v", FORMAT, "s", user, "merged", orjson.dumps({"from": session, "to": user, "time_ms": time_ms}))


def erased_entry(name: str, time_ms: int) -> Entry:
    """Returns the entry that says that a subject was erased."""
    return ("v", FORMAT, "s", name, "erased", str(time_ms))
