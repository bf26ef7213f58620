"""Private keys, `gpt4rec sign`, and artefacts that are signed as they are published."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.cli import app as export_app
from export.publish import publish, staging
from export.sign_cli import app
from export.signing import SigningKey, new_key, signer
from service.artifact.artifact import Artifact
from service.artifact.manifest import LATEST, MANIFEST
from service.artifact.signature import SIGNATURE, KeyFileError, TrustedKeys


def test_a_private_key_is_its_owners_alone_and_is_never_written_over_another_one(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    line = new_key("shop", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert line.startswith("shop:ed25519:")
    before = file.read_bytes()
    with pytest.raises(KeyFileError, match="exists"):
        new_key("shop", file)
    assert file.read_bytes() == before


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    with pytest.raises(KeyFileError, match="no private key that can be read"):
        SigningKey.read(file)
    file.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyFileError, match="no private key that can be read"):
        SigningKey.read(file)
    assert signer(None) is None


def test_an_artefact_is_signed_before_it_is_seen_and_also_if_it_was_published_before(
    random_artifact: Path, tmp_path: Path
) -> None:
    line = new_key("shop", tmp_path / "key.pem")
    (tmp_path / "keys").write_text(line)
    keys, root = TrustedKeys.read(tmp_path / "keys"), tmp_path / "artifacts"

    def published(key: Path | None) -> Path:
        with staging(root) as folder:
            shutil.copytree(random_artifact, folder, dirs_exist_ok=True)
            return publish(folder, root, sign=signer(key))

    unsigned = published(None)
    assert not (unsigned / SIGNATURE).exists()
    assert published(tmp_path / "key.pem") == unsigned
    assert Artifact.open(root, trusted=keys).model_version == unsigned.name  # through `latest`
    shutil.rmtree(unsigned)
    assert keys.verify(published(tmp_path / "key.pem"), json.loads((unsigned / MANIFEST).read_text())) == "shop"
    assert (root / LATEST).read_text().strip() == unsigned.name


def test_the_command_makes_keys_signs_and_says_who_signed(random_artifact: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(random_artifact, tmp_path / random_artifact.name)
    run, private, keys = CliRunner().invoke, str(tmp_path / "key.pem"), tmp_path / "keys"
    made = run(app, ["key", "shop", "--out", private])
    assert made.exit_code == 0, made.output
    keys.write_text(made.stdout)
    refused = run(app, ["verify", str(artifact), "--keys", str(keys)])
    assert (refused.exit_code, "it is not signed" in refused.stderr) == (1, True)
    assert run(app, ["artifact", str(artifact), "--key", private]).exit_code == 0
    verified = run(app, ["verify", str(artifact), "--keys", str(keys)])
    assert (verified.exit_code, verified.stdout) == (0, "shop\n")
    assert run(app, ["artifact", str(artifact), "--key", str(keys)]).exit_code == 1
    assert run(app, ["key", "shop", "--out", private]).exit_code == 1


def test_an_export_is_signed_and_a_key_that_cannot_be_read_ends_it_at_once(tiny_log: Path, tmp_path: Path) -> None:
    line = new_key("shop", tmp_path / "key.pem")
    (tmp_path / "keys").write_text(line)
    out = tmp_path / "artifacts"
    asked = ["--baseline", "popularity", "--data", str(tiny_log), "--out", str(out), "--sign"]
    refused = CliRunner().invoke(export_app, [*asked, str(tmp_path / "none.pem")])
    assert (refused.exit_code, out.exists()) == (1, False)
    assert "no private key that can be read" in refused.stderr
    done = CliRunner().invoke(export_app, [*asked, str(tmp_path / "key.pem")])
    assert done.exit_code == 0, done.output
    assert Artifact.open(out, trusted=TrustedKeys.read(tmp_path / "keys")).baseline is not None
