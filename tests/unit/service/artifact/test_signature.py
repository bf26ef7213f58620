"""Signed artefacts: what counts as signed, and what each refusal says."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.signing import SigningKey, new_key
from service.artifact.artifact import Artifact
from service.artifact.manifest import MANIFEST, ArtifactFileError, read_manifest
from service.artifact.signature import SIGNATURE, KeyFileError, TrustedKeys, key_id, line_of


@pytest.fixture
def artifact(random_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_artifact, tmp_path / random_artifact.name))


def key(folder: Path, name: str) -> tuple[SigningKey, str]:
    """A new key and its line."""
    line = new_key(name, folder / f"{name}.pem")
    return SigningKey.read(folder / f"{name}.pem"), line


def trusted(folder: Path, *lines: str) -> TrustedKeys:
    file = folder / "keys"
    file.write_text("# who may sign\n\n" + "\n".join(lines) + "\n")
    return TrustedKeys.read(file)


def change(artifact: Path, **entries: Any) -> None:
    manifest = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps(manifest | entries))


def test_an_artefact_is_served_with_a_signature_of_any_trusted_key(artifact: Path, tmp_path: Path) -> None:
    (old, old_line), (new, new_line) = key(tmp_path, "old"), key(tmp_path, "new")
    old.sign(artifact)
    assert trusted(tmp_path, old_line).verify(artifact, read_manifest(artifact)) == "old"
    new.sign(artifact)  # beside the first one, so that services with either key take it
    for line, name in ((old_line, "old"), (new_line, "new")):
        keys = trusted(tmp_path, line)
        assert keys.verify(artifact, Artifact.open(artifact, trusted=keys).manifest) == name
    assert trusted(tmp_path, old_line, new_line).verify(artifact, read_manifest(artifact)) in {"old", "new"}


def test_without_a_signature_it_is_refused_and_the_message_says_how_to_sign(artifact: Path, tmp_path: Path) -> None:
    keys = trusted(tmp_path, key(tmp_path, "shop")[1])
    assert Artifact.open(artifact).manifest
    with pytest.raises(ArtifactFileError, match=r"it is not signed.*keys.*gpt4rec sign artifact"):
        Artifact.open(artifact, trusted=keys)


def test_another_key_is_named_by_its_id(artifact: Path, tmp_path: Path) -> None:
    stranger, _ = key(tmp_path, "stranger")
    stranger.sign(artifact)
    with pytest.raises(ArtifactFileError, match=f"none of the keys of keys, but with {key_id(stranger.public)}"):
        Artifact.open(artifact, trusted=trusted(tmp_path, key(tmp_path, "shop")[1]))


@pytest.mark.parametrize("entry", [{"has_time": False}, {"repeats": {"kept": True}}, {"model_version": "other-1"}])
def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(
    artifact: Path, tmp_path: Path, entry: dict[str, Any]
) -> None:
    signing, line = key(tmp_path, "shop")
    signing.sign(artifact)
    change(artifact, **entry)
    with pytest.raises(ArtifactFileError, match="is not what shop signed"):
        Artifact.open(artifact, trusted=trusted(tmp_path, line))


def test_a_file_that_was_changed_needs_another_checksum_and_so_another_signature(
    artifact: Path, tmp_path: Path
) -> None:
    signing, line = key(tmp_path, "shop")
    signing.sign(artifact)
    keys = trusted(tmp_path, line)
    file = artifact / "items.npz"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(ArtifactFileError, match=r"items\.npz is not the file that was exported"):
        Artifact.open(artifact, trusted=keys)
    manifest = json.loads((artifact / MANIFEST).read_text())
    files = manifest["files"] | {"items.npz": {"sha256": "0" * 64, "bytes": file.stat().st_size}}
    change(artifact, files=files)
    with pytest.raises(ArtifactFileError, match="is not what shop signed"):
        Artifact.open(artifact, trusted=keys)


def test_the_signature_of_one_artefact_is_none_of_another(two_versions: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (Path(shutil.copytree(path, tmp_path / path.name)) for path in two_versions)
    signing, line = key(tmp_path, "shop")
    signing.sign(one)
    shutil.copyfile(one / SIGNATURE, other / SIGNATURE)
    with pytest.raises(ArtifactFileError, match="is not what shop signed"):
        Artifact.open(other, trusted=trusted(tmp_path, line))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "x"}', '{"format": "gpt4rec-signature"}'])
def test_a_damaged_signature_is_named(artifact: Path, tmp_path: Path, text: str) -> None:
    (artifact / SIGNATURE).write_text(text)
    with pytest.raises(ArtifactFileError, match=rf"{SIGNATURE} cannot be used"):
        Artifact.open(artifact, trusted=trusted(tmp_path, key(tmp_path, "shop")[1]))


def test_a_signature_of_another_length_is_wrong(artifact: Path, tmp_path: Path) -> None:
    signing, line = key(tmp_path, "shop")
    signing.sign(artifact)
    found = json.loads((artifact / SIGNATURE).read_text())
    found["keys"] = {name: base64.b64encode(b"short").decode() for name in found["keys"]}
    (artifact / SIGNATURE).write_text(json.dumps(found))
    with pytest.raises(ArtifactFileError, match="is not what shop signed"):
        Artifact.open(artifact, trusted=trusted(tmp_path, line))


@pytest.mark.parametrize(
    "line", ["shop", "shop:rsa:AAAA", "shop:ed25519:AAAA", "sh op:ed25519:" + "A" * 44, "shop:ed25519:*"]
)
def test_a_line_that_is_no_key_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(KeyFileError, match=r"keys:3: this is no public key"):
        trusted(tmp_path, line)


def test_a_file_without_a_key_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="has no key"):
        trusted(tmp_path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        TrustedKeys.read(tmp_path / "none")


def test_a_name_that_does_not_fit_into_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="is no name for a key"):
        line_of("a b", bytes(32))
