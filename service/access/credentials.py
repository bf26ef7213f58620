"""Builds the access rules from the settings and from the files that some secrets come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from service.access.keys import Access, Keys
from service.access.secret_files import SecretFile
from service.common.errors import SettingsError
from service.settings.environment import PREFIX, secret_text
from service.settings.service_settings import Settings, secret_file

Files = list[SecretFile]
# Returns the place that has one of these secrets already, None if there is none.
Taken = Callable[[Access, Keys], str | None]

# Setting name: (entries may carry rights, an empty file withdraws every entry).
_SETS = {"api_keys": (True, False), "ops_tokens": (False, True), "metrics_tokens": (False, False)}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the secrets of one set come from.

    Attributes:
        name: Of the set: `api_keys`, `ops_tokens` or `metrics_tokens`.
        place: What messages call it: the variable, or the place in the file of the spaces.
        path: The file, None if there is none.
        text: The entries at the start.
    """

    name: str
    place: str
    path: Path | None
    text: SecretStr


def sources(settings: Settings) -> list[Source]:
    """Returns where the secrets of the process come from."""
    return [Source(name, _variable(name), secret_file(name), getattr(settings, name)) for name in _SETS]


def space_sources(place: str, api_keys_file: Path | None, ops_tokens_file: Path | None) -> list[Source]:
    """Returns where the secrets of a space come from; reads the files.

    Args:
        place: Where the space is described, for messages.
        api_keys_file: File of its API keys, None if it has none.
        ops_tokens_file: File of its ops tokens, None if it has none.

    Raises:
        SettingsError: A file cannot be read.
    """
    named = {"api_keys": api_keys_file, "ops_tokens": ops_tokens_file}
    return [
        Source(name, f"{place}.{name}_file", path, SecretStr(secret_text(path, f"{place}.{name}_file")))
        for name, path in named.items()
        if path is not None
    ]


def access(settings: Settings) -> Access:
    """Reads the API keys, the ops tokens and the metrics tokens from the settings.

    Raises:
        SettingsError: As of `access_of`.
    """
    return access_of(sources(settings))


def access_of(sources: Iterable[Source], above: Access | None = None, taken: Taken = lambda *_: None) -> Access:
    """Reads secrets from their sources.

    Args:
        sources: Of each set.
        above: The rules of the process, for those of a space.
        taken: Finds a secret that belongs to another space.

    Raises:
        SettingsError: an entry is malformed; a secret is in two of the sets; or API keys or metrics tokens are
            configured, also by a file, without a single entry: that would open what they are meant to close.
    """
    access = Access(Keys({}), Keys({}), above=above)
    for source in sources:
        _apply(access, source, taken, source.text)
        _, empty_allowed = _SETS[source.name]
        configured = source.path is not None or source.text.get_secret_value().strip()
        if configured and not getattr(access, source.name) and not empty_allowed:
            raise SettingsError(f"{source.place}: there are no entries; to configure none, leave the setting out")
    return access


def files(access: Access, trust_s: float, taken: Taken = lambda *_: None) -> Files:
    """Returns the secret files of the process to follow; each applies its content to `access`.

    Args:
        access: The access rules.
        trust_s: How long the secrets of a file that cannot be read are trusted.
        taken: Finds a secret that belongs to another space.
    """
    named = [Source(name, _variable(name), secret_file(name), SecretStr("")) for name in _SETS]
    return files_of(named, access, trust_s, taken, suffix="_FILE")


def files_of(
    sources: Iterable[Source], access: Access, trust_s: float, taken: Taken = lambda *_: None, suffix: str = ""
) -> Files:
    """Returns the secret files of some sources to follow; each applies its content to `access`.

    Args:
        sources: Of the secrets.
        access: The access rules.
        trust_s: How long the secrets of a file that cannot be read are trusted.
        taken: Finds a secret that belongs to another space.
        suffix: Makes the place of a set the name of its file, for messages.
    """
    return [
        SecretFile(
            f"{source.place}{suffix}",
            source.path,
            partial(_apply, access, source, taken),
            _SETS[source.name][1],
            trust=partial(access.trust, source.name),
            trust_s=trust_s,
        )
        for source in sources
        if source.path is not None
    ]


def _apply(access: Access, source: Source, taken: Taken, text: SecretStr) -> None:
    rights, empty_allowed = _SETS[source.name]
    keys = Keys.parse(text, source.place, rights=rights)
    previous: Keys = getattr(access, source.name)
    if previous and not keys and not empty_allowed:
        raise SettingsError(f"{source.place}: there are no entries left, which would open what they close")
    for other_name in _SETS.keys() - {source.name}:
        if keys.shares(getattr(access, other_name)):
            raise SettingsError(f"{source.place}: a secret is also one of {_variable(other_name)}; use each in one")
    if (other := taken(access, keys)) is not None:
        raise SettingsError(f"{source.place}: a secret is also one of {other}; make another one for this space")
    setattr(access, source.name, keys)


def _variable(name: str) -> str:
    return PREFIX + name.upper()
