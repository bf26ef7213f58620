"""Tensors in several files: any rows are read from any parts, and half a step is not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.errors import RunError
from model.training.sharded_files import Rows, Shards, index_of, write_index, write_shard

TABLE, SCALE = torch.arange(14.0).view(7, 2), torch.tensor(3.0)


def write(folder: Path, step: int, parts: list[tuple[int, int]], *, complete: bool = True) -> None:
    shards = []
    for number, (low, high) in enumerate(parts):
        own: dict[str, torch.Tensor | Rows] = {"table": Rows(TABLE[low:high] + step, low, len(TABLE))}
        if number == 0:
            own |= {"scale": SCALE, "norm": torch.ones(3)}
        shards.append(write_shard(folder, "best", step, (number, len(parts)), own))
    if complete:
        write_index(folder, "best", shards, {"epoch": step})


PARTS = [[(0, 7)], [(0, 4), (4, 7)], [(0, 2), (2, 4), (4, 6), (6, 7)], [(0, 5), (5, 7), (7, 7)]]


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(0, 7), (0, 4), (3, 5), (5, 7), (6, 7), (7, 7)])
def test_rows_are_read_from_whatever_parts_they_are_in(
    tmp_path: Path, parts: list[tuple[int, int]], low: int, high: int
) -> None:
    write(tmp_path, 0, parts)
    shards = Shards.open(tmp_path, "best")
    assert torch.equal(shards.rows("table", low, high), TABLE[low:high])
    assert shards.meta == {"epoch": 0}


def test_one_process_reads_everything(tmp_path: Path) -> None:
    write(tmp_path, 0, PARTS[2])
    whole = Shards.open(tmp_path, "best").whole()
    assert torch.equal(whole["table"], TABLE)
    assert torch.equal(whole["scale"], SCALE)
    assert torch.equal(whole["norm"], torch.ones(3))


def test_a_step_whose_index_was_not_written_is_not_seen_and_the_next_one_removes_it(tmp_path: Path) -> None:
    write(tmp_path, 1, PARTS[1])
    write(tmp_path, 2, PARTS[1], complete=False)
    assert torch.equal(Shards.open(tmp_path, "best").rows("table"), TABLE + 1)
    write(tmp_path, 3, PARTS[3])
    assert torch.equal(Shards.open(tmp_path, "best").rows("table"), TABLE + 3)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"best\.index\.json cannot be read"):
        Shards.open(tmp_path, "best")
    write(tmp_path, 0, PARTS[1])
    shards = Shards.open(tmp_path, "best")
    with pytest.raises(RunError, match="other cannot be read"):
        shards.rows("other")
    (tmp_path / "best-00000000-00001-of-00002-table.safetensors").write_bytes(b"half")
    assert torch.equal(shards.rows("table", 0, 4), TABLE[:4])
    with pytest.raises(RunError, match="table cannot be read"):
        shards.whole()
    index = json.loads(index_of(tmp_path, "best").read_text()) | {"format": 9}
    index_of(tmp_path, "best").write_text(json.dumps(index))
    with pytest.raises(RunError, match="format 9, this version reads 1"):
        Shards.open(tmp_path, "best")


def test_rows_that_no_file_has_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, 0, [(0, 2), (4, 7)])
    with pytest.raises(RunError, match="rows 2 to 7 of table are in no file"):
        Shards.open(tmp_path, "best").rows("table")
