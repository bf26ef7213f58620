"""The signal that docs/signals.md shows: fitted, saved and ranked with as it stands there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from model.data.dataset import Dataset, Sequences, sequences
from model.signals import registry
from model.signals.data import SignalData
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, RankerWeights
from service.artifact.scorers.signal_files import load_signal, signal_file
from service.signals.ranker import Ranker
from tests.support.data_builders import tiny_dataset

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGE = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")
BLOCKS = {
    kind: textwrap.dedent(body)
    for kind, body in re.findall(
        r"<!-- (file|line): .+? -->\n+ *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE
    )
}
NAME = "freshness"
DAY_MS = 86_400_000


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page, with its line in the registry."""
    module = ModuleType(NAME)
    exec(BLOCKS["file"], module.__dict__)  # noqa: S102 - a page of this repository
    line = eval(f"{{{BLOCKS['line']}}}", {NAME: module})  # noqa: S307
    monkeypatch.setattr(registry, "SIGNALS", {**registry.SIGNALS, **line})
    return module


def data_of(dataset: Dataset, train: Sequences) -> SignalData:
    table = np.repeat(np.arange(train.n_items, dtype=np.int32)[:, None], 1, axis=1)
    item_cf = ItemCF(table, np.zeros(table.shape, np.float32))
    return SignalData(train, dataset, item_cf, Popularity.fit(train.item, train.n_items))


def test_the_signal_of_the_page_has_the_values_that_it_says(shown: ModuleType) -> None:
    dataset = tiny_dataset()
    train = sequences(dataset)
    part = registry.fit_signal(NAME, data_of(dataset, train))
    assert isinstance(part, ItemColumn)
    newest = int(train.time_ms.max())
    for item in range(train.n_items):
        times = train.time_ms[train.item == item].tolist()
        if times:
            days = (newest - min(times)) / DAY_MS
            assert part.values[item] == pytest.approx(2 ** (-days / shown.HALF_LIFE_DAYS), rel=1e-5)


def test_the_signal_of_the_page_is_saved_and_ranks(shown: ModuleType, tmp_path: Path) -> None:
    dataset = tiny_dataset()
    parts = registry.fit_signals(data_of(dataset, sequences(dataset)))
    parts[NAME].save(tmp_path / signal_file(NAME))
    read = load_signal(tmp_path / signal_file(NAME))
    parts[NAME] = read
    ranker = Ranker.of(parts, RankerWeights(tuple(parts), {DEFAULT_GROUP: {NAME: 2.0}}))
    assert ranker.used() == (NAME,)
    assert isinstance(read, ItemColumn)
    np.testing.assert_allclose(ranker.bias(), 2 * read.values)


def test_a_log_without_times_has_no_such_signal(shown: ModuleType) -> None:
    dataset = tiny_dataset(has_time=False)
    assert registry.fit_signal(NAME, data_of(dataset, sequences(dataset))) is None
