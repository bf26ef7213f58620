"""The folder of a data set: its description, and how a new one takes the place of an earlier one."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.data.errors import DataError
from service.common.atomic_files import naming

FORMAT = "gpt4rec-dataset"
FORMAT_VERSION = 1


@contextlib.contextmanager
def replacing_data_set(path: Path) -> Iterator[Path]:
    """Yields an empty folder to write, and renames it into place at the end; an earlier data set is replaced.

    Raises:
        DataError: Something that is not a data set is at `path`; it is left untouched.
        OSError: The folder cannot be written; an earlier data set is left as it was.
    """
    target = path.absolute()
    check_replaceable(target)
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            aside.chmod(0o755)
            new = aside / "new"
            new.mkdir()
            yield new
            _replace(target, aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def write_meta(folder: Path, **told: Any) -> None:
    """Writes what is told of a data set into its folder: the keys that `read_meta` asks for."""
    meta = {"format": FORMAT, "format_version": FORMAT_VERSION, **told}
    text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
    (folder / "meta.json").write_text(text, encoding="utf-8")


def _replace(target: Path, aside: Path) -> None:
    """Renames `aside/new` to the target; an earlier one goes to `aside/old`, and comes back if that fails."""
    new, old = aside / "new", aside / "old"
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def check_replaceable(target: Path) -> None:
    """Checks that a data set may be written to a path.

    Raises:
        DataError: Something is there other than an empty folder or a data set.
    """
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        with contextlib.suppress(DataError):
            read_meta(target)
            return
    raise DataError(
        "something that is not a data set is already there; it is left unchanged",
        where=str(target),
        fix="choose another --out, or move it away",
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads what is told of a data set.

    Raises:
        DataError: The folder is no data set, or its description is damaged or of another format version.
    """
    where = str(folder / "meta.json")
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            "this is not a data set folder: it has no meta.json",
            where=str(folder),
            fix="make one with `gpt4rec data import …` or `gpt4rec data movielens-100k`",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"meta.json cannot be read: {error}", where=where, fix="import the data again") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError("meta.json is not that of a data set", where=where, fix="import the data again")
    if meta.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"the data set has format {meta.get('format_version')}, but this program reads {FORMAT_VERSION}",
            where=where,
            fix="import the data again",
        )
    missing = {"name", "source", "has_time", "category_kind", "fingerprint", "report"} - meta.keys()
    if missing:
        raise DataError(f"meta.json lacks {', '.join(sorted(missing))}", where=where, fix="import the data again")
    return meta
