"""Who calls: named bearer tokens for operators, API keys for everybody else.

Secrets are kept as SHA-256 digests only. That is enough for keys of 256 random bits, as `gpt4rec keys new` makes them:
there is nothing to guess, so nothing is gained by a slow hash, and every request would pay for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from service.common.errors import Forbidden, NotFound, SettingsError, Unauthorized

_USERS = "users"
_HASHED = "sha256"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NAME = re.compile(r"[^\x00-\x1f\x7f:,#{}]{1,64}")
# Says in a diff, or to a secret scanner, what has leaked.
_MARK = "g4r_"
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's name and whether it may read and erase users."""

    name: str
    may_users: bool


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    """256 bits from the operating system, to be shown once."""
    return _MARK + secrets.token_urlsafe(_RANDOM_BYTES)


def entry(name: str, secret: str, *, users: bool = False) -> str:
    """What a setting or its file holds of a secret.

    Raises:
        ValueError: the name has one of `:,#{}` or a control character, or more than 64 characters.
    """
    if name != name.strip() or not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 64 characters, without any of :,#{}")
    return ":".join([name, _HASHED, digest(secret).hex(), *([_USERS] if users else [])])


class Keys:
    """A set of named secrets, by digest. Every comparison looks at every one of them, in constant time."""

    def __init__(self, digests: Mapping[bytes, Caller]) -> None:
        self._digests = tuple(digests.items())

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, presented: str | None) -> Caller | None:
        if presented is None:
            return None
        given, found = digest(presented), None
        for known, caller in self._digests:
            if hmac.compare_digest(known, given):
                found = caller
        return found

    def shares(self, other: Keys) -> bool:
        """Whether a secret is in both."""
        return not {known for known, _ in self._digests}.isdisjoint(known for known, _ in other._digests)

    @classmethod
    def parse(cls, text: SecretStr, setting: str, *, rights: bool) -> Keys:
        """`name:secret` or `name:sha256:<64 hex digits>`, with commas or line ends between; with `rights` a last part
        `:users` is allowed. Lines that begin with `#` are comments.

        Raises:
            SettingsError: with the position of the bad entry, never its text.
        """
        digests: dict[bytes, Caller] = {}
        lines = (line for line in text.get_secret_value().splitlines() if not line.lstrip().startswith("#"))
        entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
        for place, one in enumerate(entries, start=1):
            known, caller = _parsed(one, f"{setting}: entry {place}", rights=rights)
            if known in digests:
                raise SettingsError(f"{setting}: entry {place} repeats a secret")
            digests[known] = caller
        return cls(digests)


def _parsed(text: str, where: str, *, rights: bool) -> tuple[bytes, Caller]:
    name, *rest = (part.strip() for part in text.split(":"))
    hashed = len(rest) > 1 and rest[0] == _HASHED
    secret, right = (rest[1], rest[2:]) if hashed else (rest[0] if rest else "", rest[1:])
    allowed: tuple[list[str], ...] = ([], [_USERS]) if rights else ([],)
    if not _NAME.fullmatch(name) or not secret or right not in allowed:
        form = "name:key or name:key:users" if rights else "name:token"
        raise SettingsError(f"{where} is not {form}, nor the same with sha256:digest for its last part")
    if not hashed:
        return digest(secret), Caller(name, bool(right))
    if not _DIGEST.fullmatch(secret):
        raise SettingsError(f"{where}: a SHA-256 digest has 64 hexadecimal digits")
    return bytes.fromhex(secret), Caller(name, bool(right))


class Access:
    """Decides for a presented secret; raises 401, 403, or 404 where /ops is off.

    The sets may be replaced while the service runs (`service.access.secret_files`): every decision asks them anew.
    """

    def __init__(self, api_keys: Keys, ops_tokens: Keys, metrics_tokens: Keys | None = None) -> None:
        self.api_keys = api_keys
        self.ops_tokens = ops_tokens
        self.metrics_tokens = metrics_tokens or Keys({})

    def api(self, presented: str | None) -> Caller | None:
        """An endpoint for frontends: open where no key is configured. The caller whose rate is limited: None for
        operators, and where everybody may call."""
        if not self.api_keys:
            return None
        caller = self.api_keys.find(presented)
        if caller is None and not self.ops_tokens.find(presented):
            raise Unauthorized("a valid API key is needed")
        return caller

    def users(self, presented: str | None) -> Caller | None:
        """Reading and erasing one user: an ops token, or an API key with the right `users`. Closed where neither is
        configured: an open API is no invitation to read and erase everybody."""
        if not self.api_keys and not self.ops_tokens:
            raise Forbidden("no ops token and no API key is configured, so users can be neither read nor erased")
        if self.ops_tokens.find(presented):
            return None
        caller = self.api_keys.find(presented)
        if caller is None:
            raise Unauthorized("an ops token, or an API key with the right `users`, is needed")
        if not caller.may_users:
            raise Forbidden("this API key may not read or erase users")
        return caller

    def ops(self, presented: str | None) -> str:
        """Name of the operator. Whoever answers for long, as a stream does, asks again now and then: a token that was
        withdrawn meanwhile raises."""
        if not self.ops_tokens:
            raise NotFound("no ops token is configured, so /ops is off")
        caller = self.ops_tokens.find(presented)
        if caller is None:
            if self.api_keys.find(presented):
                raise Forbidden("an API key is not an ops token")
            raise Unauthorized("a valid ops token is needed")
        return caller.name

    def metrics(self, presented: str | None) -> None:
        """/metrics: open where no metrics token is configured; operators may always read it."""
        if self.metrics_tokens and not (self.metrics_tokens.find(presented) or self.ops_tokens.find(presented)):
            raise Unauthorized("a valid metrics token is needed")


def presented_secret(authorization: str | None, api_key: str | None) -> str | None:
    """The secret of an `Authorization: Bearer …` header, else of `X-API-Key`."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else api_key
