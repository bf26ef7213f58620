"""The artefact on disk: complete, checked, published as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from export.artifact_writer import write
from export.publish import publish, staging
from model.network.encoders.registry import receptive_field
from service.artifact.artifact import Artifact
from service.artifact.manifest import EXPLAINER, FILES, LATEST, MANIFEST, ArtifactFileError, digest, latest_of
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.scorer_files import save_scorer
from service.common.errors import ArtifactError
from service.engine.engine import Engine
from tests.support.artifacts import random_parts, write_artifact
from tests.support.networks import random_network


@pytest.fixture(scope="module")
def original(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def edit_manifest(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def bless_file(manifest: dict[str, object], file: Path) -> None:
    """Makes the manifest fit a changed file."""
    manifest["files"][file.name] = {"sha256": digest(file), "bytes": file.stat().st_size}  # type: ignore[index]


def test_a_written_artefact_is_read_back(folder: Path) -> None:
    artifact, parts = Artifact.open(folder), random_parts()
    assert artifact.catalogue.item_ids == parts.catalogue.item_ids
    assert artifact.vocabulary.context == parts.context
    assert artifact.receptive_field == receptive_field(parts.model.config)
    np.testing.assert_array_equal(artifact.item_table, parts.model.item_table().detach().numpy())
    np.testing.assert_array_equal(artifact.item_cf.neighbour, parts.item_cf.neighbour)


def test_nothing_in_an_artefact_is_pickled(folder: Path) -> None:
    for file in folder.iterdir():
        assert not file.read_bytes().startswith(b"\x80"), file
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays.files)


@pytest.mark.parametrize("name", FILES)
def test_bad_artefact_is_refused_by_the_name_of_its_file(folder: Path, name: str) -> None:
    file = folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(ArtifactFileError, match=f"{name}.*checksums differ"):
        Artifact.open(folder)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactFileError, match=name):
        Artifact.open(folder)
    file.unlink()
    with pytest.raises(ArtifactFileError, match=f"{name} is missing"):
        Artifact.open(folder)


def test_files_swapped_with_another_artefacts_are_refused(folder: Path, tmp_path: Path) -> None:
    other = write_artifact(tmp_path / "other", random_parts(seed=9))
    shutil.copy(other / "trie.npz", folder / "trie.npz")
    with pytest.raises(ArtifactFileError, match=r"trie\.npz"):
        Artifact.open(folder)


def test_parts_that_disagree_are_refused_even_with_right_checksums(folder: Path, tmp_path: Path) -> None:
    other = write_artifact(tmp_path / "other", random_parts(random_network(n_items=30)))
    shutil.copy(other / "catalogue.npz", folder / "catalogue.npz")

    def bless(manifest: dict[str, object]) -> None:
        bless_file(manifest, folder / "catalogue.npz")

    edit_manifest(folder, bless)
    with pytest.raises(ArtifactFileError, match="disagree on the number of items"):
        Artifact.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "format version 99"),
        (lambda m: m.update(format_version=1), "export it again"),
        (lambda m: m.update(format_version=4), "is of format version 4, this service reads 5; export it again"),
        (lambda m: m.update(format="something"), "not a gpt4rec manifest"),
        (lambda m: m.pop("network"), "lacks network"),
        (lambda m: m["files"].pop("encoder.onnx"), r"encoder\.onnx is missing"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    edit_manifest(folder, change)
    with pytest.raises(ArtifactFileError, match=message):
        Artifact.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(network=[]),
        lambda m: m.update(files=["encoder.onnx"]),
        lambda m: m.update(model_version=7),
        lambda m: m.pop("receptive_field"),
        lambda m: m["network"].pop("window"),
        lambda m: m["network"].update(n_slots=9),
        lambda m: m["network"].update(n_items="forty"),
        lambda m: m["context"].pop("fields"),
        lambda m: m["context"].update(values=[1]),
        lambda m: m.update(ranker=[]),
        lambda m: m["ranker"].pop("groups"),
        lambda m: m["ranker"].update(groups=[]),
        lambda m: m["ranker"].update(groups=[{"name": "warm", "weights": {}}]),
        lambda m: m["ranker"].update(groups=[{"name": "default", "weights": {"magic": 1}}]),
        lambda m: m["ranker"].update(groups=[{"name": "default", "weights": {"path": "all"}}]),
        lambda m: m["ranker"].update(groups=[{"name": "default", "weights": {"path": float("nan")}}]),
        lambda m: m["ranker"].update(groups=[{"name": "default", "weights": {"path": 1e300}}]),
        lambda m: m["ranker"].update(groups=2 * [{"name": "default", "weights": {"path": 1}}]),
        lambda m: m["ranker"].update(without_network={"dense": 1}),
        lambda m: m["ranker"].update(signals=["item_cf"]),
        lambda m: m["ranker"].update(signals=["item_cf", "popularity", "path"]),
        lambda m: m["ranker"].update(signals=["item_cf", "popularity", "../items"]),
        lambda m: m["ranker"].update(signals=["item_cf", "popularity", "item_cf"]),
    ],
)
def test_a_damaged_manifest_is_refused_by_its_name(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    edit_manifest(folder, change)
    with pytest.raises(ArtifactFileError, match=r"manifest\.json"):
        Artifact.open(folder)


def test_signals_are_read_back_with_their_weights(folder: Path) -> None:
    artifact, parts = Artifact.open(folder), random_parts()
    assert list(artifact.signals) == ["item_cf", "popularity", "transitions", "repeat", "trend"]
    assert artifact.ranker == parts.weights
    for name, part in parts.all_signals.items():
        read = artifact.signals[name]
        assert isinstance(part, type(read))
        for field in fields(read):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(part, field.name))


def test_weights_are_part_of_the_model_version(original: Path, tmp_path: Path) -> None:
    parts = random_parts()
    groups = {"default": {"path": 0.5, "dense": 0.5, "repeat": 1.0}}
    other = write_artifact(tmp_path, replace(parts, ranker=replace(parts.weights, groups=groups)))
    assert other.name != original.name
    assert Artifact.open(other).ranker.groups == groups


def test_a_signal_of_another_catalogue_or_kind_is_refused_by_its_name(folder: Path) -> None:
    file = folder / "signal_trend.npz"
    ItemColumn(np.zeros(7, np.float32)).save(file)
    edit_manifest(folder, lambda m: bless_file(m, file))
    with pytest.raises(ArtifactFileError, match=r"disagree on the number of items.*signal_trend\.npz': 7"):
        Artifact.open(folder)
    save_scorer(file, "of_a_later_version", values=np.zeros(7, np.float32))
    edit_manifest(folder, lambda m: bless_file(m, file))
    with pytest.raises(ArtifactFileError, match=r"signal_trend\.npz holds a signal of the kind 'of_a_later_version'"):
        Artifact.open(folder)


@pytest.mark.parametrize("name", ["trie.npz", "items.npz", "signal_item_cf.npz", "signal_repeat.npz", "catalogue.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"hello"])
def test_a_file_that_holds_something_else_is_refused_by_its_name(folder: Path, name: str, content: bytes) -> None:
    """Even if the manifest was changed to fit."""
    (folder / name).write_bytes(content)
    edit_manifest(folder, lambda m: bless_file(m, folder / name))
    with pytest.raises(ArtifactFileError, match=name):
        Artifact.open(folder)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"gone-0123456789", b"../elsewhere", b"."])
def test_a_pointer_to_nothing_is_refused(original: Path, tmp_path: Path, text: bytes) -> None:
    shutil.copytree(original, tmp_path / "root" / original.name)
    shutil.copytree(original, tmp_path / "elsewhere")
    (tmp_path / "root" / LATEST).write_bytes(text)
    with pytest.raises(ArtifactFileError, match="latest names"):
        Artifact.open(tmp_path / "root")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x01"])
def test_a_manifest_of_garbage_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(ArtifactFileError, match=r"manifest"):
        Artifact.open(folder)


def test_the_engine_refuses_a_damaged_artefact_with_the_services_own_error(folder: Path) -> None:
    (folder / "decoder.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"decoder\.onnx"):
        Engine.open(folder, device="cpu")


def test_a_folder_without_an_artefact_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactFileError, match="gpt4rec export"):
        Artifact.open(tmp_path)


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two artefacts that are written and not published."""
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for seed, folder in enumerate(folders, 1):
        write(random_parts(seed=seed), folder, "float32")
    return folders


def test_latest_names_the_newest_and_publishing_again_changes_nothing(
    drafts: tuple[Path, Path], tmp_path: Path
) -> None:
    with staging(tmp_path) as folder:
        first = publish(shutil.copytree(drafts[0], folder, dirs_exist_ok=True), tmp_path, latest=True)
    second = write_artifact(tmp_path, random_parts(seed=2))
    assert Artifact.open(tmp_path).folder == second
    written = (first / MANIFEST).stat().st_mtime_ns
    assert write_artifact(tmp_path, random_parts(seed=1)) == first
    assert (first / MANIFEST).stat().st_mtime_ns == written
    assert Artifact.open(tmp_path).folder == first
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([first.name, second.name, LATEST])


def test_an_export_moves_latest_only_when_it_is_asked_to(drafts: tuple[Path, Path], tmp_path: Path) -> None:
    """Otherwise the next restart of a service would serve a model that nobody chose."""

    def published(seed: int, *, latest: bool) -> Path:
        with staging(tmp_path) as folder:
            shutil.copytree(drafts[seed - 1], folder, dirs_exist_ok=True)
            return publish(folder, tmp_path, latest=latest)

    first = published(1, latest=False)
    assert Artifact.open(tmp_path).folder == first, "without another one there is nothing to move"
    second = published(2, latest=False)
    assert Artifact.open(tmp_path).folder == first and latest_of(tmp_path) == first.name
    assert published(2, latest=True) == second
    assert Artifact.open(tmp_path).folder == second
    published(1, latest=False)
    assert latest_of(tmp_path) == second.name


def test_publishing_again_mends_a_damaged_artefact(tmp_path: Path) -> None:
    """The remedy that the error of a damaged artefact names."""
    folder = write_artifact(tmp_path)
    (folder / "trie.npz").write_bytes(b"")
    with pytest.raises(ArtifactFileError, match="export the model again"):
        Artifact.open(tmp_path)
    assert write_artifact(tmp_path) == folder
    Artifact.open(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([folder.name, LATEST])


def test_everything_that_changes_an_answer_changes_the_version(tmp_path: Path) -> None:
    parts = random_parts()
    context = replace(parts.context, max_gap_ms=1)
    variants = [parts, random_parts(weights={"dense": 1.0}), replace(parts, context=context), random_parts(seed=5)]
    versions = {write_artifact(tmp_path, variant).name for variant in variants}
    versions |= {write_artifact(tmp_path, parts, dtype).name for dtype in ("float16", "int8")}
    assert len(versions) == 6
    assert write_artifact(tmp_path, replace(parts, about={"note": "nothing served"})).name in versions


def test_a_failure_while_writing_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk"), staging(tmp_path) as folder:
        write(random_parts(), folder, "float32")
        raise RuntimeError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_published_folder_is_complete_at_once(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        parts = random_parts()
        write(parts, folder, "float32")
        assert [entry for entry in tmp_path.iterdir() if not entry.name.startswith(".staging-")] == []
        target = publish(folder, tmp_path)
    assert {entry.name for entry in target.iterdir()} == {*FILES, *parts.weights.files, EXPLAINER, MANIFEST}
