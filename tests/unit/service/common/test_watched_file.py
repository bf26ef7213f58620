"""A file that is followed by its stamp."""

from __future__ import annotations

import os
from pathlib import Path

from service.common.watched_file import WatchedFile


def test_a_file_has_changed_until_its_version_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    file = WatchedFile(path)
    assert file.changed() and file.changed()
    file.accept()
    assert not file.changed()
    file.forget()
    assert file.changed()


def test_a_write_a_rename_and_a_switched_link_are_noticed(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("same")
    (tmp_path / "current").symlink_to("one")
    file = WatchedFile(tmp_path / "current" / "file")
    file.changed()
    file.accept()
    os.utime(tmp_path / "one" / "file", ns=(0, 0))
    assert file.changed()
    file.accept()
    (tmp_path / "aside").write_text("same")
    (tmp_path / "aside").rename(tmp_path / "one" / "file")
    assert file.changed()
    file.accept()
    (tmp_path / "next").symlink_to("other")
    (tmp_path / "next").rename(tmp_path / "current")
    assert file.changed()


def test_a_file_that_goes_away_has_changed_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    file = WatchedFile(path)
    file.changed()
    file.accept()
    path.unlink()
    assert file.changed()
    file.accept()
    assert not file.changed()
    path.write_text("a")
    assert file.changed()


def test_what_is_written_after_the_look_is_noticed_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    file = WatchedFile(path)
    assert file.changed()
    path.write_text("longer")
    file.accept()
    assert file.changed()
