"""Keys and tokens: parsed, kept as digests, compared, made."""

from __future__ import annotations

import hmac
import json
import string
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

from service.access import keys as auth
from service.access.keys import Access, Caller, Keys, presented_secret
from service.cli import keys as cli_keys
from service.common.errors import SettingsError
from service.common.request_errors import Forbidden, NotFound, Unauthorized

NAMES = st.text(
    st.characters(exclude_characters=":,#{}", exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=64
)
SECRETS = st.text(string.ascii_letters + string.digits + "_-.", min_size=1, max_size=64)


def parse(text: str, *, rights: bool = True) -> Keys:
    return Keys.parse(SecretStr(text), "SETTING", rights=rights)


@given(name=NAMES, secret=SECRETS, users=st.booleans())
def test_a_hashed_entry_finds_the_secret_it_was_made_of(name: str, secret: str, users: bool) -> None:
    entry = auth.entry(name, secret, users=users)
    assert parse(entry).find(secret) == Caller(name, users)
    assert parse(entry).find(secret + "x") is None
    assert secret not in entry.removeprefix(name) or len(secret) < 9


def test_the_digest_is_no_secret_itself() -> None:
    entry = auth.entry("shop", "the-key")
    assert parse(entry).find(entry.rpartition(":")[2]) is None
    assert parse(entry).find(entry) is None


def test_no_secret_is_kept_in_memory() -> None:
    keys = parse("shop:plain-key,crm:sha256:" + "0" * 64)
    assert "plain-key" not in repr(vars(keys))
    assert "plain-key" not in repr(keys)
    assert keys.find("plain-key") == Caller("shop", False)


def test_entries_stand_on_lines_or_between_commas_and_may_be_commented() -> None:
    keys = parse("# who: since when\nshop:k1\n\ncrm:k2:users, app:k3\r\n")
    assert [keys.find(k) for k in ("k1", "k2", "k3")] == [
        Caller("shop", False), Caller("crm", True), Caller("app", False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["shop:sha256:abc", "shop:sha256:" + "g" * 64, "shop:sha256:" + "0" * 65, "shop:sha256:" + "0" * 64 + ":root",
     "a\x00b:k", "n" * 65 + ":k", "a:b:users:users", "a:sha256:users"],
)  # fmt: skip
def test_a_bad_entry_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(SettingsError, match="entry 2") as caught:
        parse("ok:fine," + text)
    assert text not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_as_a_setting(text: str) -> None:
    for rights in (False, True):
        try:
            keys = parse(text, rights=rights)
        except SettingsError as error:
            assert "entry" in str(error)
        else:
            assert keys.find("no-such-secret") is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_header_presents_a_secret_or_none(authorization: str, api_key: str) -> None:
    found = presented_secret(authorization, api_key)
    assert found is not None
    assert parse("a:" + "k" * 300).find(found) is None


def test_every_digest_is_compared_whichever_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return hmac.compare_digest(known, given)

    keys = parse("a:first,b:second,c:third")
    monkeypatch.setattr(auth, "hmac", SimpleNamespace(compare_digest=compare))
    for secret in ("first", "third", "none of them"):
        compared.clear()
        keys.find(secret)
        assert compared == [auth.digest(one) for one in ("first", "second", "third")]


def test_a_secret_of_undecodable_bytes_is_only_wrong() -> None:
    assert parse("a:k").find("\udcff\udc00") is None
    assert parse("a:k").find("") is None


def test_an_api_key_is_no_ops_token_and_nobody_is_both() -> None:
    access = Access(parse("shop:k1,crm:k2:users"), parse("alice:t1", rights=False), parse("prom:m1", rights=False))
    assert access.ops("t1") == "alice"
    with pytest.raises(Forbidden):
        access.ops("k2")
    for wrong in ("m1", "x", "", None):
        with pytest.raises(Unauthorized):
            access.ops(wrong)
        with pytest.raises(Unauthorized):
            access.api(wrong)
        with pytest.raises(Unauthorized):
            access.users(wrong)
    access.metrics("m1")
    access.metrics("t1")
    for wrong in ("k1", None):
        with pytest.raises(Unauthorized):
            access.metrics(wrong)


def test_a_withdrawn_token_is_refused_at_the_next_question() -> None:
    access = Access(Keys({}), parse("alice:t1,bob:t2", rights=False))
    assert access.ops("t1") == "alice"
    access.ops_tokens = parse("bob:t2", rights=False)
    with pytest.raises(Unauthorized):
        access.ops("t1")
    access.ops_tokens = Keys({})
    with pytest.raises(NotFound):
        access.ops("t2")


def test_a_new_key_is_random_and_its_entry_does_not_hold_it() -> None:
    runner, seen = CliRunner(), set()
    for _ in range(3):
        made = json.loads(runner.invoke(cli_keys.app, ["new", "shop", "--users", "--json"]).stdout)
        assert made["secret"] not in made["entry"]
        assert len(made["secret"]) > 40
        assert parse(made["entry"]).find(made["secret"]) == Caller("shop", True)
        seen.add(made["secret"])
    assert len(seen) == 3
    printed = runner.invoke(cli_keys.app, ["new", "alice"]).stdout
    assert printed.count("g4r_") == 1


def test_an_existing_key_is_hashed_from_the_standard_input() -> None:
    runner = CliRunner()
    entry = runner.invoke(cli_keys.app, ["hash", "shop"], input="the-key\n").stdout.strip()
    assert parse(entry).find("the-key") == Caller("shop", False)
    assert runner.invoke(cli_keys.app, ["hash", "shop"], input="").exit_code == 2
    assert runner.invoke(cli_keys.app, ["new", "a:b"]).exit_code == 2
