"""Authenticates callers: named bearer tokens for operators, API keys for everyone else.

Secrets are kept only as SHA-256 digests. That is enough for keys of 256 random bits, which `gpt4rec keys new` makes:
such a key cannot be guessed, so a slow hash would add nothing but time to every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from service.common.errors import SettingsError
from service.common.request_errors import Forbidden, NotFound, Unauthorized

_USERS, _ITEMS = "users", "items"
_RIGHTS = (_USERS, _ITEMS)
_UNREAD = "has not been readable for too long"
_HASHED = "sha256"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NAME = re.compile(r"[^\x00-\x1f\x7f:,#{}]{1,64}")
# Lets a reviewer or a secret scanner recognise a leaked key.
_MARK = "g4r_"
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a key.

    Attributes:
        name: Name of the key, as configured.
        may_users: Whether the key may read and erase users.
        may_items: Whether the key may change items.
    """

    name: str
    may_users: bool
    may_items: bool = False


def digest(secret: str) -> bytes:
    """Returns the SHA-256 digest of a secret, [32] bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    """Makes a secret of 256 random bits from the operating system; show it once and store only its digest."""
    return _MARK + secrets.token_urlsafe(_RANDOM_BYTES)


def entry(name: str, secret: str, *, users: bool = False, items: bool = False) -> str:
    """Returns the entry for a secret in a setting or its file: `name:sha256:digest`, and its rights behind colons.

    Raises:
        ValueError: the name has one of `:,#{}` or a control character, or is not 1 to 64 characters long.
    """
    if name != name.strip() or not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 characters and none of :,#{}")
    rights = [right for right, given in ((_USERS, users), (_ITEMS, items)) if given]
    return ":".join([name, _HASHED, digest(secret).hex(), *rights])


class Keys:
    """A set of named secrets, kept by digest.

    Every look-up compares with all of them in constant time, so its duration reveals nothing.
    """

    def __init__(self, digests: Mapping[bytes, Caller]) -> None:
        self._digests = tuple(digests.items())

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, presented: str | None) -> Caller | None:
        """Returns the caller with this secret, or None for an absent or unknown secret."""
        if presented is None:
            return None
        presented_digest, match = digest(presented), None
        for known, caller in self._digests:
            if hmac.compare_digest(known, presented_digest):
                match = caller
        return match

    def shares(self, other: Keys) -> bool:
        """Returns whether the two sets have a secret in common."""
        return not self.digests().isdisjoint(other.digests())

    def digests(self) -> frozenset[bytes]:
        """Returns the SHA-256 digests of the secrets."""
        return frozenset(known for known, _ in self._digests)

    @classmethod
    def parse(cls, text: SecretStr, setting: str, *, rights: bool) -> Keys:
        """Parses entries `name:secret` or `name:sha256:<64 hex digits>`, separated by commas or line ends.

        Lines that begin with `#` are comments.

        Args:
            text: The entries.
            setting: Name of the setting, for messages.
            rights: Whether an entry may end in `:users`, `:items` or both.

        Raises:
            SettingsError: an entry is malformed or repeats a secret. The message has its position, never its text.
        """
        digests: dict[bytes, Caller] = {}
        lines = (line for line in text.get_secret_value().splitlines() if not line.lstrip().startswith("#"))
        entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
        for position, text_of_entry in enumerate(entries, start=1):
            secret_digest, caller = _parsed(text_of_entry, f"{setting}: entry {position}", rights=rights)
            if secret_digest in digests:
                raise SettingsError(f"{setting}: entry {position} repeats a secret of an earlier entry; remove one")
            digests[secret_digest] = caller
        return cls(digests)


def _parsed(text: str, where: str, *, rights: bool) -> tuple[bytes, Caller]:
    name, *rest = (part.strip() for part in text.split(":"))
    hashed = len(rest) > 1 and rest[0] == _HASHED
    secret, given = (rest[1], rest[2:]) if hashed else (rest[0] if rest else "", rest[1:])
    allowed = set(given) <= set(_RIGHTS if rights else ()) and len(set(given)) == len(given)
    if not _NAME.fullmatch(name) or not secret or not allowed:
        ending = ", with :users or :items after it for these rights" if rights else ""
        raise SettingsError(f"{where} is malformed: write NAME:SECRET or NAME:sha256:DIGEST{ending}")
    caller = Caller(name, _USERS in given, _ITEMS in given)
    if not hashed:
        return digest(secret), caller
    if not _DIGEST.fullmatch(secret):
        raise SettingsError(f"{where}: a SHA-256 digest has 64 hexadecimal digits")
    return bytes.fromhex(secret), caller


class Access:
    """Decides who may call what.

    The sets may be replaced while the service runs (`service.access.secret_files`), so every decision reads them again.

    Attributes:
        api_keys: Keys of the frontends.
        ops_tokens: Tokens of the operators.
        metrics_tokens: Tokens that may read /metrics.
        above: The rules of the process, for those of one space: its ops tokens act in every space, and its metrics
            tokens read the metrics of each. None for the rules of the process.

    While the file of a set has been unread for long, a secret that was withdrawn in it would keep working. So what
    protects changes and personal data closes: its ops tokens open nothing, and its API keys lose `users` and `items`.
    Lists, events and metrics stay open to the keys and tokens that are known.
    """

    def __init__(
        self, api_keys: Keys, ops_tokens: Keys, metrics_tokens: Keys | None = None, above: Access | None = None
    ) -> None:
        self.api_keys = api_keys
        self.ops_tokens = ops_tokens
        self.metrics_tokens = metrics_tokens or Keys({})
        self.above = above
        self._distrusted: frozenset[str] = frozenset()

    def trust(self, name: str, trusted: bool) -> None:
        """Takes over whether the file of a set (`ops_tokens`, …) was read lately."""
        self._distrusted = self._distrusted - {name} if trusted else self._distrusted | {name}

    def api(self, presented: str | None) -> Caller | None:
        """Checks a call of an endpoint for frontends, which is open when no API key is configured.

        Args:
            presented: The secret of the request.

        Returns:
            The caller whose rate is limited; None for operators and when the API is open.

        Raises:
            Unauthorized: the secret is neither an API key nor an ops token.
        """
        if not self.api_keys:
            return None
        caller = self.api_keys.find(presented)
        if caller is None and not self.find_operator(presented):
            raise Unauthorized("a valid API key is needed")
        return caller

    def users(self, presented: str | None) -> Caller | None:
        """Checks whether the caller may read and erase a user and store features: an ops token, or a key with `users`.

        It is closed when neither is configured: an open API must not allow anyone to read and erase every user.

        Returns:
            The caller whose rate is limited; None for operators.

        Raises:
            Unauthorized: the secret is neither an API key nor an ops token.
            Forbidden: the key lacks the right, or neither keys nor tokens are configured.
        """
        if not self.api_keys and not self.has_operators:
            raise Forbidden("no ops token and no API key is configured, so users can be neither read nor erased")
        if self.find_operator(presented):
            return None
        caller = self.api_keys.find(presented)
        if caller is None:
            raise Unauthorized("an ops token, or an API key with the right `users`, is needed")
        if "api_keys" in self._distrusted:
            raise Forbidden(f"the file of API keys {_UNREAD}; until it is read, they can neither read nor erase users")
        if not caller.may_users:
            raise Forbidden("this API key may not read or erase users")
        return caller

    def items(self, presented: str | None) -> tuple[str, Caller | None]:
        """Checks whether the caller may change items: an ops token, or a key with the right `items`.

        It is closed when neither is configured: an open API must not allow anyone to change the catalogue.

        Returns:
            The name for the audit, and the caller whose rate is limited; None for operators.

        Raises:
            Unauthorized: the secret is neither an API key nor an ops token.
            Forbidden: the key lacks the right, or neither keys nor tokens are configured.
        """
        if not self.api_keys and not self.has_operators:
            raise Forbidden("no ops token and no API key is configured, so items cannot be changed")
        operator = self.find_operator(presented)
        if operator is not None:
            return operator.name, None
        caller = self.api_keys.find(presented)
        if caller is None:
            raise Unauthorized("an ops token, or an API key with the right `items`, is needed")
        if "api_keys" in self._distrusted:
            raise Forbidden(f"the file of API keys {_UNREAD}; until it is read, they cannot change items")
        if not caller.may_items:
            raise Forbidden("this API key may not change items")
        return caller.name, caller

    def tester(self, presented: str | None) -> None:
        """Checks whether the caller may choose the arm of an answer: an ops token, or an API key that may read users.

        A page of a shop asks with a key without that right, so no user can look behind an experiment through it.

        Raises:
            Forbidden: The secret is neither.
        """
        if self.find_operator(presented):
            return
        caller = None if "api_keys" in self._distrusted else self.api_keys.find(presented)
        if caller is None or not caller.may_users:
            raise Forbidden("an ops token, or an API key with the right `users`, is needed to choose an arm")

    def ops(self, presented: str | None) -> str:
        """Returns the name of the operator.

        A long-lived answer, such as a stream, calls this again from time to time: a token that was withdrawn in the
        meantime raises.

        Raises:
            NotFound: no ops token is configured, so /ops is off.
            Unauthorized: the secret is not an ops token.
            Forbidden: the secret is an API key.
        """
        if not self.has_operators:
            raise NotFound("no ops token is configured, so /ops is off")
        caller = self.find_operator(presented)
        if caller is None:
            if self.ops_tokens.find(presented) or (self.above and self.above.ops_tokens.find(presented)):
                raise Unauthorized(f"the file of ops tokens {_UNREAD}; until it is read, they open nothing")
            if self.api_keys.find(presented):
                raise Forbidden("an API key is not an ops token")
            raise Unauthorized("a valid ops token is needed")
        return caller.name

    def operator(self, presented: str | None) -> str | None:
        """Returns the name of the operator whose token this is; None for anybody else."""
        caller = self.find_operator(presented)
        return None if caller is None else caller.name

    def owner(self, presented: str | None) -> str:
        """Returns the name of the key or token; "" for anybody without one."""
        caller = self.api_keys.find(presented) or self.find_operator(presented)
        return "" if caller is None else caller.name

    def metrics(self, presented: str | None) -> None:
        """Checks a call of /metrics, which is open when no metrics token is configured; operators may always read it.

        Raises:
            Unauthorized: the secret is neither a metrics token nor an ops token.
        """
        tokens = self.readers
        if tokens and not (tokens.find(presented) or self.find_operator(presented)):
            raise Unauthorized("a valid metrics token is needed")

    def acts_in_all(self, presented: str | None) -> bool:
        """Returns whether a secret is an ops or metrics token of the process, which holds in all spaces."""
        top = self if self.above is None else self.above
        return top.operator(presented) is not None or top.metrics_tokens.find(presented) is not None

    @property
    def has_operators(self) -> bool:
        """Whether an ops token is configured, for this space or for all."""
        return bool(self.ops_tokens or (self.above and self.above.ops_tokens))

    @property
    def readers(self) -> Keys:
        """The tokens that may read /metrics."""
        return self.metrics_tokens if self.above is None else self.above.metrics_tokens

    def find_operator(self, presented: str | None) -> Caller | None:
        """Returns the operator whose token this is; None for anybody else."""
        own = None if "ops_tokens" in self._distrusted else self.ops_tokens.find(presented)
        return own if own is not None or self.above is None else self.above.find_operator(presented)


def presented_secret(authorization: str | None, api_key: str | None) -> str | None:
    """Returns the secret of an `Authorization: Bearer …` header, otherwise the one of `X-API-Key`."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else api_key
