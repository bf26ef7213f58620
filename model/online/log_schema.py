"""The columns of the log folder, and the rows that entries of the streams become.

There are four kinds of rows: what was shown (`exposures`), what users did (`events`), sessions that became users
(`merges`), and subjects that were erased (`erased`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import orjson
import polars as pl

from model.data.errors import DataError

# Of the entries of the streams, and of the files. Files of format 1 lack the columns `SINCE_2`, which are null then.
FORMAT, FILES = 1, 2
Kind = Literal["exposures", "events", "merges", "erased"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ARM = pl.Struct({"experiment": pl.String, "arm": pl.String})
_PARAMETERS = pl.Struct({"temperature": pl.Float64, "top_p": pl.Float64, "beam_width": pl.Int32})

_EXPOSURES: dict[str, pl.DataType | type[pl.DataType]] = {
    "list_id": pl.String,
    "request_id": pl.String,
    "subject": pl.String,
    "time_ms": pl.Int64,
    "scene": pl.String,
    "k": pl.Int32,
    "items": pl.List(pl.String),
    "scores": pl.List(pl.Float32),
    "log_propensities": pl.List(pl.Float64),
    "drawn": pl.Int32,
    "set_log_propensity": pl.Float64,
    "strategy": pl.String,
    "parameters": _PARAMETERS,
    "segment": pl.String,
    "explored": pl.Boolean,
    "source": pl.String,
    "scorers": pl.List(pl.String),
    "rung": pl.String,
    "reason": pl.String,
    "model_version": pl.String,
    "policies_version": pl.String,
    "catalogue_version": pl.String,
    "arms": pl.List(_ARM),
    "filter": pl.String,
    "excluded": pl.Int32,
    "history_version": pl.String,
    "seed": pl.String,
    "candidates": pl.List(pl.UInt32),
    "candidate_scores": pl.List(pl.Float32),
    "first_rank": pl.Int32,
    "asked": pl.Int32,
}
SINCE_2 = ("first_rank", "asked")

SCHEMAS: Mapping[Kind, pl.Schema] = MappingProxyType(
    {
        "exposures": pl.Schema(_EXPOSURES),
        "events": pl.Schema(
            {
                "subject": pl.String,
                "item_id": pl.String,
                "type": pl.String,
                "time_ms": pl.Int64,
                "event_id": pl.String,
                "value": pl.Float64,
                "query": pl.String,
                "request_id": pl.String,
                "list_id": pl.String,
                "received_ms": pl.Int64,
            }
        ),
        "merges": pl.Schema({"subject": pl.String, "into": pl.String, "merged_ms": pl.Int64}),
        "erased": pl.Schema({"subject": pl.String, "erased_ms": pl.Int64}),
    }
)
# The time that says in which hour's folder a row lies.
TIME_OF: Mapping[Kind, str] = MappingProxyType(
    {"exposures": "time_ms", "events": "received_ms", "merges": "merged_ms", "erased": "erased_ms"}
)
# Fields that the schema keeps as text whatever their type in JSON.
_TEXTS = ("policies_version", "catalogue_version", "model_version", "history_version", "seed")


class LogError(DataError):
    """A log of exposures and events cannot be read or written."""


def frame_of(kind: Kind, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Returns rows as a table with the columns of their kind; fields that the schema does not know are left out.

    Args:
        kind: What the rows are.
        rows: One mapping a row; a missing field is null.

    Raises:
        LogError: A field has a type that its column cannot hold.
    """
    schema = SCHEMAS[kind]
    listed = [{name: row.get(name) for name in schema} for row in rows]
    try:
        return pl.DataFrame(listed, schema=schema, orient="row")
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise LogError(f"{kind} do not fit the schema of format {FORMAT}: {error}") from error


def empty(kind: Kind, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Returns a table without rows.

    Args:
        kind: What its rows would be.
        columns: Its columns; None for all.
    """
    table = pl.DataFrame(schema=SCHEMAS[kind])
    return table if columns is None else table.select(columns)


def entry_row(stream: Literal["exposures", "events"], fields: Mapping[str, bytes]) -> tuple[Kind, dict[str, Any]]:
    """Returns what kind of row an entry of a stream becomes, and the row.

    Args:
        stream: The stream that it is in.
        fields: Its fields, as `service.exposures.exposure` describes them.

    Raises:
        LogError: The entry has another format, or is damaged.
    """
    version = fields.get("v", b"").decode(errors="replace")
    if version != str(FORMAT):
        raise LogError(
            f"an entry of the stream {stream} has format {version or 'none'}; this version reads format {FORMAT}",
            fix="read it with the version that wrote it",
        )
    subject = fields.get("s", b"").decode()
    if "erased" in fields:
        return "erased", {"subject": subject, "erased_ms": int(fields["erased"])}
    if "merged" in fields:
        merge = _object(fields["merged"])
        return "merges", {"subject": merge.get("from"), "into": merge.get("to"), "merged_ms": merge.get("time_ms")}
    body = fields.get("e", b"")
    if stream == "events":
        return "events", event_row(subject, body)
    return "exposures", exposure_row(subject, body, fields.get("c"))


def exposure_row(subject: str, body: bytes, candidates: bytes | None = None) -> dict[str, Any]:
    """Returns the row of an exposure as it stands in the stream.

    Args:
        subject: Field `s` of the entry.
        body: Field `e`, JSON.
        candidates: Field `c` of a sampled list: little-endian uint32 n, n × uint32 indices, n × float32 scores.

    Raises:
        LogError: The body is not JSON, or the candidates are not whole.
    """
    row = _object(body)
    row["subject"] = subject
    for name in _TEXTS:
        if row.get(name) is not None:
            row[name] = str(row[name])
    if row.get("filter") is not None:
        row["filter"] = orjson.dumps(row["filter"], option=orjson.OPT_SORT_KEYS).decode()
    row["arms"] = [{"experiment": name, "arm": arm} for name, arm in sorted((row.get("arms") or {}).items())]
    row["candidates"], row["candidate_scores"] = _candidates(candidates)
    return row


def event_row(subject: str, body: bytes) -> dict[str, Any]:
    """Returns the row of an event as it stands in the stream; see `exposure_row`."""
    row = _object(body)
    row["subject"] = subject
    return row


def _object(body: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise LogError(f"an entry of the stream is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise LogError(f"an entry of the stream is {type(row).__name__}, not an object")
    return row


def _candidates(packed: bytes | None) -> tuple[list[int] | None, list[float] | None]:
    if packed is None:
        return None, None
    n = int.from_bytes(packed[:4], "little")
    if len(packed) != 4 + 8 * n:
        raise LogError(f"the candidates of an exposure take {len(packed)} bytes, not the {4 + 8 * n} of {n}")
    items = np.frombuffer(packed, "<u4", n, 4)
    scores = np.frombuffer(packed, "<f4", n, 4 + 4 * n)
    return items.tolist(), scores.tolist()
