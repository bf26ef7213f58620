"""Files of keys and tokens, followed while the service runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.access import credentials, keys
from service.access.keys import Access
from service.common.errors import SettingsError
from service.common.request_errors import Forbidden, Unauthorized
from service.settings.loader import load


def followed(monkeypatch: pytest.MonkeyPatch, folder: Path, **texts: str) -> tuple[Access, credentials.Files]:
    for name, text in texts.items():
        (folder / name).write_text(text)
        monkeypatch.setenv(f"GPT4REC_{name.upper()}_FILE", str(folder / name))
    access = credentials.access(load())
    return access, credentials.files(access, 300.0)


def write(path: Path, text: str) -> None:
    aside = path.with_suffix(".aside")
    aside.write_text(text)
    aside.replace(path)


def test_a_key_is_added_and_withdrawn_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    access, files = followed(monkeypatch, tmp_path, api_keys="old:k1", ops_tokens="alice:t1")
    write(tmp_path / "api_keys", "old:k1\n" + keys.entry("new", "k2"))
    write(tmp_path / "ops_tokens", "bob:t2")
    for file in files:
        file.look()
    assert access.api("k1")
    assert access.api("k2")
    assert access.ops("t2") == "bob"
    with pytest.raises(Unauthorized):
        access.ops("t1")
    write(tmp_path / "api_keys", keys.entry("new", "k2"))
    for file in files:
        file.look()
    with pytest.raises(Unauthorized):
        access.api("k1")


@pytest.mark.parametrize(
    "text", ["", "  \n", "# nothing but this\n", "no entry", "a:b:c", "alice:t1", "\udcff"], ids=range(7)
)
def test_a_bad_file_of_keys_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    access, files = followed(monkeypatch, tmp_path, api_keys="shop:k1", ops_tokens="alice:t1")
    (tmp_path / "api_keys").write_bytes(text.encode("utf-8", "surrogateescape"))
    for _ in range(2):
        for file in files:
            file.look()
    assert access.api("k1")
    with pytest.raises(Unauthorized):
        access.api("x")
    (tmp_path / "api_keys").unlink()
    for file in files:
        file.look()
    assert access.api("k1")


def test_an_emptied_file_of_tokens_withdraws_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    access, files = followed(monkeypatch, tmp_path, ops_tokens="alice:t1")
    write(tmp_path / "ops_tokens", "")
    for file in files:
        file.look()
    assert not access.ops_tokens


@pytest.mark.parametrize("text", ["\n", "# shop:sha256:0", " , ,\n"], ids=["blank", "comments", "commas"])
@pytest.mark.parametrize("name", ["api_keys", "metrics_tokens"])
def test_an_empty_file_of_keys_does_not_open_the_api_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(SettingsError, match="there are no entries"):
        followed(monkeypatch, tmp_path, **{name: text})


def test_a_refused_file_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A token moves from one file to another, and both are replaced at once: the first look meets it in both."""
    access, files = followed(
        monkeypatch, tmp_path, ops_tokens="alice:first\nbob:second", metrics_tokens="scraper:third"
    )
    write(tmp_path / "ops_tokens", "alice:first\nscraper:third")
    write(tmp_path / "metrics_tokens", "scraper:fourth")
    for _ in range(2):
        for file in files:
            file.look()
    with pytest.raises(Unauthorized):
        access.ops("second")
    assert access.ops("third") == "scraper"


def test_a_secret_in_two_sets_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="also one of") as caught:
        followed(monkeypatch, tmp_path, api_keys="shop:same-secret", ops_tokens="alice:same-secret")
    assert "same-secret" not in str(caught.value)


def test_secrets_of_a_file_that_is_unread_for_long_change_nothing_and_reveal_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    access, files = followed(monkeypatch, tmp_path, api_keys="crm:k1:users", ops_tokens="alice:t1")
    now = 0.0
    for file in files:
        file.clock, file._known_at = lambda: now, now
        file.look()
        file.path.rename(file.path.with_suffix(".away"))

    def later() -> None:
        for file in files:
            file.look()
            file.judge()

    now = 299.0
    later()
    assert access.ops("t1") == "alice"
    assert access.users("k1")
    now = 301.0
    later()
    for refused in (access.ops, access.users, access.api):
        with pytest.raises(Unauthorized):
            refused("t1")
    with pytest.raises(Forbidden, match="has not been readable"):
        access.users("k1")
    assert access.api("k1")
    for file in files:
        file.path.with_suffix(".away").rename(file.path)
    later()
    assert access.ops("t1") == "alice"
    assert access.users("k1")
