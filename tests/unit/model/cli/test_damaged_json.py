"""Every file of JSON or YAML that a command reads may be damaged, also by nesting: a sentence names it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from export.from_run import ExportError, export_run
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.errors import ConfigError, RunError
from model.training.config_values import read_file
from model.training.run_folder import Run
from service.artifact.manifest import ArtifactFileError, read_manifest
from service.common.errors import PolicyError
from service.policies import policies


def _office(path: Path) -> object:
    path.with_name("samples.csv.gz").write_bytes(gzip.compress(b"user_id,history,target\nu,,a\n"))
    path.with_name("items.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    return import_dataset(ImportRequest(str(path.parent), Format.AMAZON_OFFICE))


def _attributes(path: Path) -> object:
    path.with_name("log.csv").write_text("user_id,item_id\nu,a\n")
    return import_dataset(ImportRequest(str(path.with_name("log.csv")), Format.CSV, attributes=path))


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "meta.json": (lambda path: Dataset.load(path.parent), DataError),
    "run.json": (lambda path: Run.open(path.parent), RunError),
    "manifest.json": (lambda path: read_manifest(path.parent), ArtifactFileError),
    "settings.yaml": (read_file, ConfigError),
    "policies.yaml": (policies.load, PolicyError),
    "attributes.json": (_attributes, DataError),
    "items.jsonl": (_office, DataError),
}


@pytest.mark.parametrize("content", ["{", "[" * 1_500, '{"a": ' * 1_500, "\ufeff\x00", "[1, 2"])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    read, error = READERS[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(error) as caught:
        read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def test_an_export_names_the_damaged_file_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 1_500, encoding="utf-8")
    with pytest.raises(ExportError, match="not a training run"):
        export_run(tmp_path, tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()
