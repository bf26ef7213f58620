"""The noise of an item follows from its id: a vectorised hash beside a plain one, and catalogues that differ."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.graphs.noise import ID_BASE, PRIME, ROUND_KEYS, id_hashes
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.items.columns import Texts
from service.engine.decode.item_noise import ItemNoise

ids = st.lists(st.text(min_size=1, max_size=12), max_size=8, unique=True)


def plain_hash(item_id: str) -> int:
    raw = item_id.encode("utf-8", "surrogatepass")
    x = len(raw) + 1
    for byte in raw:
        x = (x * ID_BASE + byte + 1) % PRIME
    for key in ROUND_KEYS:
        x = (pow(x, 5, PRIME) + key) % PRIME
    return x


@given(ids)
def test_the_hashes_of_ids_are_those_of_the_plain_loop(given: list[str]) -> None:
    assert id_hashes(Texts.of(given)).tolist() == [plain_hash(one) for one in given]


@given(ids, st.data())
def test_an_item_has_the_same_hash_wherever_it_stands(given: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(given))
    cut, other = (data.draw(st.integers(0, len(given))) for _ in range(2))
    found = []
    for items, exported in ((given, cut), (order, other)):
        catalogue = Catalogue.of([CatalogueItem(one) for one in items[:exported]])
        catalogue = catalogue.updated([CatalogueItem(one) for one in items[exported:]], [])
        noise = ItemNoise.of(Catalogue.of([CatalogueItem(one) for one in items[:exported]])).over(catalogue)
        index = np.array([catalogue.index[one] for one in items], np.int64)
        hashes = noise.hashes(index)
        assert noise.rows(len(catalogue)).take(index).tolist() == hashes.tolist()
        found.append(dict(zip(items, hashes.tolist(), strict=True)))
    assert found[0] == found[1]
