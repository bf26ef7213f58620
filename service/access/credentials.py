"""From the settings, and the files that some of them come from, to who may call."""

from __future__ import annotations

from functools import partial

from pydantic import SecretStr

from service.access.keys import Access, Keys
from service.access.secret_files import SecretFile
from service.common.errors import SettingsError
from service.common.settings import PREFIX, Settings, secret_file

Files = list[SecretFile]

# Name of the setting: whether its entries may have rights, and whether an empty file withdraws all of them.
_SETS = {"api_keys": (True, False), "ops_tokens": (False, True), "metrics_tokens": (False, False)}


def access(settings: Settings) -> Access:
    """Raises SettingsError: an entry that is none, a secret in two of the sets, or API keys or metrics tokens that are
    set, or come from a file, and have no entry: that would open what they are to close."""
    found = Access(Keys({}), Keys({}))
    for name, (_, empty_allowed) in _SETS.items():
        text: SecretStr = getattr(settings, name)
        _apply(found, name, text)
        given = secret_file(name) is not None or text.get_secret_value().strip()
        if given and not getattr(found, name) and not empty_allowed:
            raise SettingsError(f"{_variable(name)}: there is no entry; for none at all, leave the setting out")
    return found


def files(access: Access) -> Files:
    """Those to be followed."""
    return [
        SecretFile(f"{_variable(name)}_FILE", path, partial(_apply, access, name), empty_allowed)
        for name, (_, empty_allowed) in _SETS.items()
        if (path := secret_file(name)) is not None
    ]


def _apply(access: Access, name: str, text: SecretStr) -> None:
    rights, empty_allowed = _SETS[name]
    keys = Keys.parse(text, _variable(name), rights=rights)
    former: Keys = getattr(access, name)
    if former and not keys and not empty_allowed:
        raise SettingsError(f"{_variable(name)}: no entry is left")
    for other in _SETS.keys() - {name}:
        if keys.shares(getattr(access, other)):
            raise SettingsError(f"{_variable(name)}: a secret is also one of {_variable(other)}")
    setattr(access, name, keys)


def _variable(name: str) -> str:
    return PREFIX + name.upper()
