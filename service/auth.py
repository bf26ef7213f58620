"""Who calls: named bearer tokens for operators, API keys for everybody else."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from pydantic import SecretStr

from service.errors import Forbidden, NotFound, SettingsError, Unauthorized

_USERS = "users"


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's name and whether it may read and erase users."""

    name: str
    may_users: bool


class Keys:
    """A set of named secrets. Every comparison looks at every secret, in constant time."""

    def __init__(self, secrets: dict[str, Caller]) -> None:
        self._secrets = [(secret.encode(), caller) for secret, caller in secrets.items()]

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def find(self, presented: str | None) -> Caller | None:
        if presented is None:
            return None
        given, found = presented.encode("utf-8", "surrogateescape"), None
        for secret, caller in self._secrets:
            if hmac.compare_digest(secret, given):
                found = caller
        return found

    @classmethod
    def parse(cls, text: SecretStr, setting: str, *, rights: bool) -> Keys:
        """`name:secret,…`; with `rights` a third part `:users` is allowed.

        Raises:
            SettingsError: with the position of the bad entry, never its text.
        """
        secrets: dict[str, Caller] = {}
        entries = [entry.strip() for entry in text.get_secret_value().split(",") if entry.strip()]
        for place, entry in enumerate(entries, start=1):
            name, *rest = (part.strip() for part in entry.split(":"))
            right = rest[1:] if rights else []
            if not name or len(rest) - len(right) != 1 or not rest[0] or right not in ([], [_USERS]):
                form = "name:key or name:key:users" if rights else "name:token"
                raise SettingsError(f"{setting}: entry {place} is not {form}")
            if rest[0] in secrets:
                raise SettingsError(f"{setting}: entry {place} repeats a secret")
            secrets[rest[0]] = Caller(name, bool(right))
        return cls(secrets)


@dataclass(frozen=True, slots=True)
class Access:
    """Decides for a presented secret; raises 401, 403, or 404 where /ops is off."""

    api_keys: Keys
    ops_tokens: Keys

    def api(self, presented: str | None) -> None:
        """An endpoint for frontends: open where no key is configured."""
        if self.api_keys and not (self.api_keys.find(presented) or self.ops_tokens.find(presented)):
            raise Unauthorized("a valid API key is needed")

    def users(self, presented: str | None) -> None:
        """Reading and erasing one user: an ops token, or an API key with the right `users`. Closed where neither is
        configured: an open API is no invitation to read and erase everybody."""
        if not self.api_keys and not self.ops_tokens:
            raise Forbidden("no ops token and no API key is configured, so users can be neither read nor erased")
        if self.ops_tokens.find(presented):
            return
        caller = self.api_keys.find(presented)
        if caller is None:
            raise Unauthorized("an ops token, or an API key with the right `users`, is needed")
        if not caller.may_users:
            raise Forbidden("this API key may not read or erase users")

    def ops(self, presented: str | None) -> str:
        """Name of the operator."""
        if not self.ops_tokens:
            raise NotFound("no ops token is configured, so /ops is off")
        caller = self.ops_tokens.find(presented)
        if caller is None:
            if self.api_keys.find(presented):
                raise Forbidden("an API key is not an ops token")
            raise Unauthorized("a valid ops token is needed")
        return caller.name


def presented_secret(authorization: str | None, api_key: str | None) -> str | None:
    """The secret of an `Authorization: Bearer …` header, else of `X-API-Key`."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else api_key
