"""Builds the access rules from the settings and from the files that some secrets come from."""

from __future__ import annotations

from functools import partial

from pydantic import SecretStr

from service.access.keys import Access, Keys
from service.access.secret_files import SecretFile
from service.common.environment import PREFIX
from service.common.errors import SettingsError
from service.common.settings import Settings, secret_file

Files = list[SecretFile]

# Setting name: (entries may carry rights, an empty file withdraws every entry).
_SETS = {"api_keys": (True, False), "ops_tokens": (False, True), "metrics_tokens": (False, False)}


def access(settings: Settings) -> Access:
    """Reads the API keys, the ops tokens and the metrics tokens from the settings.

    Raises:
        SettingsError: an entry is malformed; a secret is in two of the sets; or API keys or metrics tokens are
            configured, also by a file, without a single entry: that would open what they are meant to close.
    """
    access = Access(Keys({}), Keys({}))
    for name, (_, empty_allowed) in _SETS.items():
        text: SecretStr = getattr(settings, name)
        _apply(access, name, text)
        configured = secret_file(name) is not None or text.get_secret_value().strip()
        if configured and not getattr(access, name) and not empty_allowed:
            raise SettingsError(f"{_variable(name)}: there are no entries; to configure none, leave the setting out")
    return access


def files(access: Access, trust_s: float) -> Files:
    """Returns the secret files to follow; each applies its content to `access`.

    Args:
        access: The access rules.
        trust_s: How long the secrets of a file that cannot be read are trusted.
    """
    return [
        SecretFile(
            f"{_variable(name)}_FILE",
            path,
            partial(_apply, access, name),
            empty_allowed,
            trust=partial(access.trust, name),
            trust_s=trust_s,
        )
        for name, (_, empty_allowed) in _SETS.items()
        if (path := secret_file(name)) is not None
    ]


def _apply(access: Access, name: str, text: SecretStr) -> None:
    rights, empty_allowed = _SETS[name]
    keys = Keys.parse(text, _variable(name), rights=rights)
    previous: Keys = getattr(access, name)
    if previous and not keys and not empty_allowed:
        raise SettingsError(f"{_variable(name)}: there are no entries left, which would open what they close")
    for other_name in _SETS.keys() - {name}:
        if keys.shares(getattr(access, other_name)):
            raise SettingsError(f"{_variable(name)}: a secret is also one of {_variable(other_name)}; use each in one")
    setattr(access, name, keys)


def _variable(name: str) -> str:
    return PREFIX + name.upper()
