"""Writes a data set out of the blocks of its events, with the files of an import in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from model.data.assemble import prepare
from model.data.checks import ROW, Findings
from model.data.compression import plain_name
from model.data.dataset import EVENT_SCHEMA, SCENE
from model.data.dataset_folder import replacing_data_set, write_meta
from model.data.errors import DataError
from model.data.importing import read_side_tables
from model.data.items_users import complete_items, complete_users
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.streamed.conversion import Facts
from model.data.streamed.digest import fingerprint_of_files
from model.data.streamed.engine import Plan, notes_of
from model.data.streamed.tallies import Tallies
from model.data.vectors import matched

_ROW_GROUP = 1 << 18
_ITEMS: dict[str, pl.DataType] = {"item_id": pl.String(), "events": pl.Int64()}


class Block:
    """The files of a block: its events, and beside them its items and users in order of first appearance."""

    def __init__(self, folder: Path, number: int) -> None:
        self.events = folder / f"{number:06d}.parquet"
        self.items = folder / f"{number:06d}.items"
        self.users = folder / f"{number:06d}.users"

    def write(self, events: pl.DataFrame) -> Tallies:
        """Writes a block, and counts what the report says of it."""
        events.select(*EVENT_SCHEMA, SCENE).write_parquet(self.events, compression="lz4", row_group_size=_ROW_GROUP)
        _counted(events.select("item_id", pl.lit(1, pl.Int64).alias("events"))).write_parquet(self.items)
        events.select(pl.col("user_id").unique(maintain_order=True)).write_parquet(self.users)
        return Tallies.of(events)


def write_data_set(
    plan: Plan, facts: Facts, tallies: Tallies, blocks: Sequence[Block], out: Path, step: Callable[[str], None]
) -> dict[str, object]:
    """Writes the folder of a data set, whole or not at all.

    Args:
        plan: What was imported.
        facts: What all pieces say about the log.
        tallies: What was counted of all blocks.
        blocks: The blocks in order, at least one.
        out: The folder.
        step: Called with a few words before each step.

    Returns:
        What meta.json tells of the data set.

    Raises:
        DataError: The side tables do not go with the log.
    """
    notes = [*facts.notes, *(f"{count} {what}" for what, count in facts.counted.items())]
    absent = notes_of(sorted(facts.held), facts.default_type, plan.columns)
    findings = Findings(dict(facts.dropped), [*notes, *absent])
    raw = _raw(plan, findings, step)
    logged = pl.DataFrame(schema=_ITEMS)
    for block in blocks:
        logged = _counted(pl.concat([logged, pl.read_parquet(block.items)]))
    items = complete_items(raw, logged)
    has_time = "timestamp" in facts.held
    with replacing_data_set(out) as folder:
        step("writing the events")
        columns = [*EVENT_SCHEMA, *([SCENE] if tallies.has_scenes else [])]
        events = pl.scan_parquet([block.events for block in blocks]).select(columns)
        events.sink_parquet(folder / "events.parquet", row_group_size=_ROW_GROUP)
        items.write_parquet(folder / "items.parquet")
        users = _write_users(raw, blocks, folder / "users.parquet")
        vectors = None
        if raw.vectors is not None:
            vectors = matched(raw.vectors[0], items["item_id"].to_list(), raw.vectors[1], findings)
        step("computing the fingerprint")
        digest = fingerprint_of_files(folder / "events.parquet", items, users, raw.category_kind)
        if vectors is not None:
            digest = vectors.digest(digest)
            vectors.save(folder)
        told = {
            "name": raw.name, "source": raw.source, "has_time": has_time, "category_kind": raw.category_kind,
            "fingerprint": digest, "report": tallies.report(items.height, logged.height, findings),
        }  # fmt: skip
        write_meta(folder, **told)
    return told


def refuse_nothing(plan: Plan, facts: Facts, tallies: Tallies) -> None:
    """Checks that events are left.

    Raises:
        DataError: None is.
    """
    if not tallies.events:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in facts.dropped.items())
        raise DataError(
            "no event is left after the checks",
            where=f"{plan.pieces[0].path}; dropped: {reasons}",
            fix="fill in what is missing, or check --map",
        )


def _raw(plan: Plan, findings: Findings, step: Callable[[str], None]) -> RawDataset:
    """The side tables, checked; the log in it is empty."""
    request, first = plan.request, Path(plan.request.source)
    name = first.name if first.is_dir() else plain_name(Path(plan.pieces[0].path)).rsplit(".", 1)[0]
    log = SourceTable(
        pl.DataFrame(schema={"user_id": pl.String(), "item_id": pl.String(), ROW: pl.Int64()}), str(first)
    )
    raw = RawDataset(name, plan.source, log, findings=findings, rules=request.rules)
    for role, why in request.unused_roles().items():
        findings.note(f"the mapping of {role} is not used: {why}")
    read_side_tables(raw, request, step)
    tables = [table for table in (raw.items, raw.users) if table]
    if tables:
        prepare(tables, raw)
    return raw


def _write_users(raw: RawDataset, blocks: Sequence[Block], path: Path) -> Path | pl.DataFrame:
    """Writes the users; with features they are read whole, as their table is."""
    ids = pl.scan_parquet([block.users for block in blocks])
    if raw.users is None:
        ids.sink_parquet(path, row_group_size=_ROW_GROUP)
        return path
    users = complete_users(raw, ids.collect()["user_id"])
    users.write_parquet(path)
    return users


def _counted(items: pl.DataFrame) -> pl.DataFrame:
    return items.group_by("item_id", maintain_order=True).agg(pl.col("events").sum())
