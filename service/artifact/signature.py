"""The signature of an artefact, and the keys that may have made it.

    signature.json    {"format": "gpt4rec-signature", "format_version": 1, "keys": {key id: signature in base64}}

Signed are the bytes of the manifest, which has the sha256 of every other file and everything else that is served: who
changes a file, an entry or the version needs the private key. Several keys may sign, so that they can be replaced one
after the other. The scheme is Ed25519 (RFC 8032), by the package `cryptography`, which is needed only where signatures
are asked for.

A file of trusted keys has one public key a line, `name:ed25519:<32 bytes in base64>`, as `gpt4rec sign key` prints it;
empty lines and lines that begin with # say nothing. What is said here of a wrong line or signature never has the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.artifact.manifest import MANIFEST, ArtifactFileError

SIGNATURE = "signature.json"
FORMAT, FORMAT_VERSION = "gpt4rec-signature", 1
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64
# Keeps a signature of an artefact from being one of anything else that the key may sign.
_PURPOSE = b"gpt4rec artefact, version 1\n"
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):ed25519:(\S+)")
_MOST_BYTES = 1 << 20
_INSTALL = "the package cryptography is not installed: pip install 'gpt4rec[sign]'"


class KeyFileError(ValueError):
    """A file of keys cannot be used; the message names it and says why."""


def message(manifest: bytes) -> bytes:
    """Returns what is signed for a manifest with these bytes."""
    return _PURPOSE + manifest


def key_id(public: bytes) -> str:
    """Returns the name of a public key in signatures: 16 hex digits of its sha256."""
    return hashlib.sha256(public).hexdigest()[:16]


def line_of(name: str, public: bytes) -> str:
    """Returns the line of a public key in a file of trusted keys.

    Raises:
        ValueError: The name does not fit into it.
    """
    line = f"{name}:ed25519:{base64.b64encode(public).decode()}"
    if not _LINE.fullmatch(line):
        raise ValueError(f"{name!r} is no name for a key: use up to 64 letters, digits, dots, dashes and underscores")
    return line


def read_signatures(folder: Path) -> dict[str, bytes]:
    """Returns the signatures of an artefact by the id of their key; none if it is not signed.

    Raises:
        ArtifactFileError: The file of the signatures cannot be used.
    """
    try:
        text = (folder / SIGNATURE).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ArtifactFileError(f"{folder}: {SIGNATURE} cannot be read: {error}") from error
    try:
        found: Any = json.loads(text)
        if (found["format"], found["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("it is of another format")
        return {str(key): base64.b64decode(value, validate=True) for key, value in found["keys"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactFileError(f"{folder}: {SIGNATURE} cannot be used: {error}; sign the artefact again") from error


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys whose signatures count.

    Attributes:
        file: Where they were read.
        keys: Name and 32 bytes of each, by its id.
    """

    file: Path
    keys: Mapping[str, tuple[str, bytes]]

    @classmethod
    def read(cls, file: Path) -> TrustedKeys:
        """Reads a file of public keys.

        Raises:
            KeyFileError: It cannot be read, has no key, or a line that is none.
        """
        try:
            text = file.read_bytes()[:_MOST_BYTES].decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{file} cannot be read: {error}") from error
        keys: dict[str, tuple[str, bytes]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                name, public = _parsed(file, number, line.strip())
                keys[key_id(public)] = (name, public)
        if not keys:
            raise KeyFileError(f"{file} has no key; write the line that `gpt4rec sign key` prints into it")
        return cls(file, keys)

    def verify(self, folder: Path, manifest: Mapping[str, Any]) -> str:
        """Verifies that an artefact was signed with one of the keys.

        Args:
            folder: Of the artefact.
            manifest: The manifest that was read of it.

        Returns:
            The name of the key.

        Raises:
            ArtifactFileError: It is not signed, not with one of these keys, or was changed since.
            KeyFileError: Signatures cannot be verified here.
        """
        try:
            written = (folder / MANIFEST).read_bytes()
            same = json.loads(written) == manifest
        except (OSError, ValueError) as error:
            raise ArtifactFileError(f"{folder}: {MANIFEST} cannot be read: {error}") from error
        if not same:
            raise ArtifactFileError(f"{folder}: {MANIFEST} was replaced while it was read; load it again")
        signatures = read_signatures(folder)
        if not signatures:
            raise ArtifactFileError(
                f"{folder}: it is not signed, and only artefacts signed with a key of {self.file.name} are served: "
                "gpt4rec sign artifact"
            )
        known = [(self.keys[key], signature) for key, signature in signatures.items() if key in self.keys]
        if not known:
            raise ArtifactFileError(
                f"{folder}: it is signed with none of the keys of {self.file.name}, but with {', '.join(signatures)}"
            )
        for (name, public), signature in known:
            if _is_valid(public, signature, message(written)):
                return name
        names = ", ".join(name for (name, _), _ in known)
        raise ArtifactFileError(
            f"{folder}: {MANIFEST} is not what {names} signed; it was changed after it was signed, or the signature was"
        )


def _parsed(file: Path, number: int, line: str) -> tuple[str, bytes]:
    """Returns the name and the bytes of a public key."""
    found = _LINE.fullmatch(line)
    try:
        public = base64.b64decode(found[2], validate=True) if found else b""
    except binascii.Error:
        public = b""
    if found is None or len(public) != PUBLIC_BYTES:
        raise KeyFileError(
            f"{file}:{number}: this is no public key; write name:ed25519:<base64>, as `gpt4rec sign key` prints it"
        )
    return found[1], public


def _is_valid(public: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise KeyFileError(_INSTALL) from error
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True
