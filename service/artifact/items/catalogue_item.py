"""One item of the catalogue: what is shown of it, what filters test, and when it may be listed.

A category may be a **path**, written "Fashion > Women > Shoes" or as a list of steps. An item on a path has each of its
steps as a category too, so that a bare name keeps its meaning: any item with that name, at whatever step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The facets that filters name, and beside them those that only the catalogue reads.
FACETS = ("category", "brand", "attribute")
PATH, CURRENCY = "path", "currency"
# Numbers of an item; `float64`, so times in milliseconds and stocks are exact.
NUMBERS = ("price", "stock", "valid_from_ms", "valid_until_ms")
# Texts that are only shown.
TEXTS = ("image", "url")

SEPARATOR = " > "
STEPS_MAX = 16


@dataclass(frozen=True)
class CatalogueItem:
    """One item.

    Attributes:
        category: The levels of its category, top first, or its tags; of an item on paths, all their steps.
        paths: The category paths that it is on, as `path_of` writes them; none leads to another.
        price: The price, in `currency`.
        currency: Three letters, as in ISO 4217.
        stock: Pieces in stock; an item with 0 is not listed.
        image: Address of its picture.
        url: Address of its page.
        valid_from_ms: When it is listed from, in epoch milliseconds.
        valid_until_ms: When it is not listed any more, in epoch milliseconds.
    """

    item_id: str
    title: str | None = None
    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    price: float | None = None
    currency: str | None = None
    stock: int | None = None
    image: str | None = None
    url: str | None = None
    valid_from_ms: int | None = None
    valid_until_ms: int | None = None

    def facet(self, name: str) -> tuple[str, ...]:
        """Returns the item's values of one of `FACETS`, of `PATH` or of `CURRENCY`.

        Those of `PATH` are its paths and all that lead to them.
        """
        match name:
            case "category":
                return self.category
            case "brand":
                return () if self.brand is None else (self.brand,)
            case "path":
                return tuple(dict.fromkeys(prefix for path in self.paths for prefix in _leading_to(path)))
            case "currency":
                return () if self.currency is None else (self.currency,)
            case _:
                return self.attributes

    def listed_at(self, now_ms: float) -> bool:
        """Returns whether the item may be listed at a time, by its stock and its window."""
        begun = self.valid_from_ms is None or self.valid_from_ms <= now_ms
        return self.stock != 0 and begun and (self.valid_until_ms is None or now_ms < self.valid_until_ms)


def steps_of(category: str) -> tuple[str, ...]:
    """Returns the steps of a category path; of anything else the text alone."""
    steps = tuple(step.strip() for step in category.split(SEPARATOR))
    return steps if len(steps) > 1 and all(steps) else (category,)


def path_of(steps: Iterable[str]) -> str:
    """Returns a category path as one text; of a single step the step alone."""
    return SEPARATOR.join(step for one in steps for step in steps_of(one))


def categories_of(values: Sequence[str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Returns the fields `category` and `paths` of an item.

    Args:
        values: Its categories: names, paths as texts, and paths as lists of steps.
    """
    texts = tuple(value if isinstance(value, str) else path_of(value) for value in values)
    steps = [steps_of(text) for text in texts]
    paths = tuple(dict.fromkeys(SEPARATOR.join(one) for one in steps if len(one) > 1))
    names = tuple(dict.fromkeys(step for one in steps for step in one)) if paths else texts
    return {"category": names, "paths": longest(paths)}


def longest(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the paths without those that lead to another of them."""
    if len(paths) < 2:
        return tuple(paths)
    return tuple(path for path in paths if not any(other.startswith(path + SEPARATOR) for other in paths))


def _leading_to(path: str) -> Iterable[str]:
    """A path of two steps and more, and the paths above it; one step alone is a name like others."""
    steps = steps_of(path)
    return (SEPARATOR.join(steps[:end]) for end in range(2, len(steps) + 1))
