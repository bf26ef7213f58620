"""Words of a text as search and placing compare them."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """Folds a title for search: lower case, no accents or punctuation, a space before each word.

    "Schindler's List (1993)" becomes ` schindlers list 1993`.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (
        "" if unicodedata.category(letter) == "Mn" or letter in "'’" else letter if letter.isalnum() else " "
        for letter in plain
    )
    return "".join(f" {word}" for word in "".join(kept).split())


def words_of(text: str, most: int) -> list[str]:
    """Returns the first `most` different folded words of a text."""
    return list(dict.fromkeys(fold(text).split()))[:most]
