"""Whatever is fed to a parser of the service comes out as a value, or as the error that the parser promises."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.access.rate_limits import rate_of
from service.api.cors import origins_of
from service.common.errors import PolicyError, SettingsError, StoreUnavailable
from service.common.request_context import request_id
from service.common.request_errors import RequestError
from service.coordination.forced_mode import Mode
from service.policies import policies
from service.schemas.parsing import parse
from service.schemas.request_bodies import REQUEST_BODIES
from service.settings.service_settings import DEFAULT_POLICIES
from service.store.history_calls import events_of
from service.store.records import parse_events

SANE = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/+=@-")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
# Names that the parsers know, so that they get further than the first unknown one.
names = st.sampled_from(["segments", "name", "when", "decoding", "strategy", "min_events", "top_p", "user_id", "events",
                         "item_id", "type", "timestamp", "k", "filter", "mode", "reason", "expires_in_s"]) | st.text(
    max_size=10
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
brief = settings(max_examples=50, deadline=None)
relaxed = settings(brief, suppress_health_check=[HealthCheck.function_scoped_fixture])


@brief
@given(values)
def test_any_policies_are_valid_or_refused(data: Any) -> None:
    try:
        found = policies.parse(data)
    except PolicyError:
        return
    assert found.segments


@relaxed
@given(st.text(max_size=300) | values.map(yaml.safe_dump))
@example("[" * 1500)
@example("a: &a [*a]")
@example("a: &a [1]\nb: [*a, *a]\n<<: *a")
@example("!!python/object/apply:os.system ['true']")
@example("? [1]\n: 2")
@example("2024-02-30")
def test_any_policies_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policies.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        policies.load(path)
    except PolicyError as error:
        assert "Traceback" not in str(error)


@relaxed
@given(st.integers(0, 10_000), st.binary(max_size=8))
def test_a_damaged_policies_file_is_read_or_refused(tmp_path: Path, at: int, junk: bytes) -> None:
    good = DEFAULT_POLICIES.read_bytes()
    path = tmp_path / "policies.yaml"
    path.write_bytes(good[: at % len(good)] + junk + good[at % len(good) + len(junk) :])
    with contextlib.suppress(PolicyError):
        policies.load(path)


@pytest.mark.parametrize("body", REQUEST_BODIES)
@brief
@given(raw=st.binary(max_size=200) | values.map(json.dumps).map(str.encode))
@example(raw=b"[" * 100_000)
@example(raw=b'{"a":' * 5000)
@example(raw=b"\xef\xbb\xbf{}")
@example(raw=b'{"user_id": "\\ud800"}')
def test_any_body_is_valid_or_refused(body: Any, raw: bytes) -> None:
    try:
        parse(body, raw, latest_ms=1_700_000_000_000)
    except RequestError as error:
        assert 400 <= error.status < 500


@brief
@given(st.none() | st.binary(max_size=200))
@example(b"abc\n")
@example(b"abc\r\nSet-Cookie: x")
def test_any_request_id_is_kept_if_sane_and_replaced_if_not(given_: bytes | None) -> None:
    found = request_id(given_)
    assert 1 <= len(found) <= 128
    assert set(found.encode()) <= SANE


@brief
@given(st.text(max_size=60))
def test_any_rate_is_one_or_refused(text: str) -> None:
    try:
        assert rate_of(text).get_expiry() > 0
    except SettingsError as error:
        assert "GPT4REC_API_RATE" in str(error)


@brief
@given(st.text(max_size=60))
def test_any_origins_are_some_or_refused(text: str) -> None:
    try:
        found = origins_of(text)
    except SettingsError:
        return
    assert all(origin == "*" or origin.startswith(("http://", "https://")) for origin in found)


@brief
@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_log_is_read_or_unavailable(flat: list[bytes]) -> None:
    try:
        found = events_of(flat)
    except StoreUnavailable:
        return
    assert found == parse_events(flat)


@brief
@given(st.tuples(st.integers(), st.integers(), st.binary(max_size=100) | values.map(str).map(str.encode)))
@example((1, 1, b'{"mode": "auto", "reason": [], "actor": {}, "expires_at": 1e400}'))
@example((1, 1, b'{"mode": [], "reason": null, "actor": null, "expires_at": null}'))
def test_any_stored_mode_is_one_or_none(stored: tuple[int, int, bytes]) -> None:
    found = Mode.parse(stored)
    assert found is None or found.mode in ("auto", "fallback", "model")
