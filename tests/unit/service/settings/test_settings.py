"""Settings: read once, unknown ones refused, secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.common.errors import SettingsError
from service.settings.loader import load
from service.settings.service_settings import Settings


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT4REC_PORT", "9000")
    monkeypatch.setenv("GPT4REC_DEADLINE_MS", "50")
    settings = load(port=0, host=None)
    assert (settings.port, settings.deadline_ms, settings.host) == (0, 50.0, "127.0.0.1")


def test_an_unknown_setting_is_refused_and_the_closest_known_one_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPT4REC_DEADLNE_MS", "50")
    with pytest.raises(SettingsError, match=r"GPT4REC_DEADLNE_MS.*did you mean GPT4REC_DEADLINE_MS"):
        load()


def test_a_variable_that_kubernetes_adds_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT4REC_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load()


def test_a_bad_value_names_its_setting_and_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT4REC_PORT", "hunter2")
    with pytest.raises(SettingsError, match="GPT4REC_PORT") as caught:
        load()
    assert "hunter2" not in str(caught.value)


def test_a_default_budget_above_the_greatest_is_refused() -> None:
    with pytest.raises(SettingsError, match="GPT4REC_DEADLINE_MS"):
        load(deadline_ms=100.0, deadline_max_ms=50.0)


def test_a_secret_comes_from_a_file_and_is_never_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("alice:hunter2\n")
    monkeypatch.setenv("GPT4REC_OPS_TOKENS_FILE", str(tmp_path / "tokens"))
    monkeypatch.setenv("GPT4REC_REDIS_URL", "redis://:hunter2@host")
    settings = load()
    assert settings.ops_tokens.get_secret_value() == "alice:hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_a_secret_given_twice_or_unreadable_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPT4REC_API_KEYS_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="cannot read"):
        load()
    monkeypatch.setenv("GPT4REC_API_KEYS", "a:b")
    with pytest.raises(SettingsError, match="both set"):
        load()


def test_only_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT4REC_PORT_FILE", "/etc/hostname")
    with pytest.raises(SettingsError, match="GPT4REC_PORT_FILE"):
        load()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
