"""The environment variables of the service, and the files of secrets that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.common.errors import SettingsError
from service.process.disk_lane import DiskLane, HungFileError

PREFIX = "GPT4REC_"
_SECRET_PATIENCE_S = 10.0


def file_of(name: str) -> Path | None:
    """Returns the file that `GPT4REC_<NAME>_FILE` names, None if that is not set."""
    path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
    return Path(path) if path else None


def secret_text(path: Path, place: str) -> str:
    """Returns the content of a file of secrets at the start.

    Args:
        path: The file.
        place: Where the file is named, for messages.

    Raises:
        SettingsError: The file cannot be read, or its disk hangs.
    """
    try:
        # A disk that hangs must not hold the start up without a word.
        content = DiskLane(place, patience_s=_SECRET_PATIENCE_S).run_now(path.read_bytes)
        return content.decode("utf-8").strip()
    except HungFileError as error:
        raise SettingsError(f"{place}: {path} does not answer; does its disk hang?") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place}: cannot read {path}") from error


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `GPT4REC_<SECRET>_FILE`: Docker and Kubernetes mount secrets as files."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Returns the content of the file of one setting, None if it does not come from a file."""
        path = file_of(field_name) if field.annotation is SecretStr else None
        if path is None:
            return None, field_name, False
        return secret_text(path, f"{PREFIX}{field_name.upper()}_FILE"), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Returns the settings that come from files."""
        values = {n: self.get_field_value(f, n)[0] for n, f in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class EnvironmentSettings(BaseSettings):
    """The base of settings that come from flags, the environment and files of secrets."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources, the first of which wins: flags, the environment, files of secrets."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @classmethod
    def secret_names(cls) -> list[str]:
        """Returns the settings whose value is never printed and may come from a file."""
        return [name for name, field in cls.model_fields.items() if field.annotation is SecretStr]

    @classmethod
    def variable_names(cls) -> list[str]:
        """Returns every environment variable of these settings."""
        plain = [PREFIX + name.upper() for name in cls.model_fields]
        return [*plain, *(f"{PREFIX}{name.upper()}_FILE" for name in cls.secret_names())]


def reject_unknown(environ: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises SettingsError for a variable of the service that is unknown, or that is set together with its file.

    Args:
        environ: The environment.
        known: Every variable that the service reads.
    """
    for name in sorted(n for n in environ if n.upper().startswith(PREFIX)):
        if name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            if environ[name].startswith("tcp://") or "_SERVICE_" in name.upper():
                hint = "; Kubernetes adds it for a Service of this name: set enableServiceLinks: false"
            raise SettingsError(f"unknown setting {name}{hint}")
        secret = name.upper().removesuffix("_FILE")
        if name.upper().endswith("_FILE") and environ.get(secret):
            raise SettingsError(f"{secret} and {name} are both set")
