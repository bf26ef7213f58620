"""Signs artefacts: reads and makes private keys, and writes `signature.json` beside the manifest."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.artifact.manifest import MANIFEST, ArtifactFileError
from service.artifact.signature import (
    FORMAT,
    FORMAT_VERSION,
    SIGNATURE,
    KeyFileError,
    key_id,
    line_of,
    message,
    read_signatures,
)
from service.common.atomic_files import naming, write_aside

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Writes the signature of an artefact's folder.
Sign = Callable[[Path], None]
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key.

    Attributes:
        private: The key.
        public: Its public key, 32 bytes.
    """

    private: Ed25519PrivateKey
    public: bytes

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> SigningKey:
        """Returns a key with its public part."""
        return cls(private, private.public_key().public_bytes_raw())

    @classmethod
    def read(cls, file: Path) -> SigningKey:
        """Reads a private key in PEM (PKCS #8).

        `gpt4rec sign key` and `openssl genpkey -algorithm ed25519` write such files.

        Raises:
            KeyFileError: It cannot be read, or is no such key.
        """
        serialization, ed25519 = _cryptography()
        try:
            private = serialization.load_pem_private_key(file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise KeyFileError(f"{file} is no private key that can be read: {error}") from error
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise KeyFileError(f"{file} is no Ed25519 key; make one with `gpt4rec sign key`")
        return cls.of(private)

    def sign(self, folder: Path) -> None:
        """Writes the signature of an artefact; those of other keys are kept as long as they are there.

        Raises:
            ArtifactFileError: The artefact has no manifest, or a damaged file of signatures.
        """
        try:
            manifest = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise ArtifactFileError(f"{folder}: {MANIFEST} cannot be read: {error}") from error
        signatures = read_signatures(folder) | {key_id(self.public): self.private.sign(message(manifest))}
        written = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "keys": {key: base64.b64encode(signature).decode() for key, signature in sorted(signatures.items())},
        }
        write_aside(folder / SIGNATURE, json.dumps(written, indent=1).encode() + b"\n")


def new_key(name: str, file: Path) -> str:
    """Writes a new private key, readable by its owner alone, and returns the line of its public key.

    Args:
        name: Of the key.
        file: Must not exist.

    Raises:
        KeyFileError: The file exists, or the name is none.
    """
    serialization, ed25519 = _cryptography()
    key = SigningKey.of(ed25519.Ed25519PrivateKey.generate())
    try:
        line = line_of(name, key.public)
    except ValueError as error:
        raise KeyFileError(str(error)) from error
    text = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with naming(file):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        except FileExistsError as error:
            raise KeyFileError(f"{file} exists; a key is never written over another one") from error
        with os.fdopen(descriptor, "wb") as out:
            out.write(text)
    return line


def signer(file: Path | None) -> Sign | None:
    """Returns what signs with the key of a file; None without a file.

    Raises:
        KeyFileError: The key cannot be read.
    """
    return None if file is None else SigningKey.read(file).sign


def _cryptography() -> tuple[Any, Any]:
    """Returns the modules of an optional package that keys need."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise KeyFileError("the package cryptography is not installed: pip install 'gpt4rec[sign]'") from error
    return serialization, ed25519
