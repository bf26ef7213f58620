"""What a shop says of its items beside what a model reads: currency, stock, addresses, and when an item is for sale.

A column that cannot be read stops no import: no model learns from it. What cannot be read is left empty and noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from model.data.checks import Findings
from model.data.column_types import TEXT_KINDS, as_text, require
from model.data.errors import DataError, quoted
from model.data.quantities import as_numbers
from model.data.rules import Rules
from model.data.times import DAY_MS, Place, parse_times
from service.catalogue.item_fields import ADDRESS_MAX, STOCK_MAX

# Columns of the item table that are absent where the source has none, so that the fingerprint of such data stays.
SHOP_SCHEMA: Mapping[str, pl.DataType] = {
    "currency": pl.String(),
    "stock": pl.Int64(),
    "image": pl.String(),
    "url": pl.String(),
    "valid_from": pl.Int64(),
    "valid_until": pl.Int64(),
}
_CURRENCY = r"^[A-Z]{3}$"
_ADDRESS = r"^(https?://|/)[^\x00-\x20\x7f-\x{9f}]*$"
# An item may be for sale until any day that times can name.
_LAST_MS = 253_402_300_800_000 - DAY_MS - 1


def shop_column(name: str, column: pl.Series, place: Place, findings: Findings, rules: Rules) -> pl.Series:
    """Checks and converts one column.

    Args:
        name: One of `SHOP_SCHEMA`.
        column: [rows] the values of the source.
        place: Where they come from.
        findings: Receives what could not be read.
        rules: What the caller says about the values.

    Returns:
        [rows] the column in its type of `SHOP_SCHEMA`, under its name; null where the source has no value of use.
    """
    read, what = _READERS[name]
    try:
        values = read(column, place, findings, rules)
    except DataError as error:
        findings.note(f"column {place.column or name!r} of the item table is left out: {error.what}")
        return pl.Series(name, [None] * len(column), SHOP_SCHEMA[name])
    lost = column.is_not_null() & values.is_null()
    if lost.any():
        examples = quoted(column.filter(lost).cast(pl.String, strict=False).drop_nulls().unique(maintain_order=True))
        findings.note(f"{int(lost.sum())} values of {name} are not {what} and were left empty: {examples}")
    return values.cast(SHOP_SCHEMA[name]).alias(name)


def _matching(pattern: str, *, upper: bool = False) -> Callable[..., pl.Series]:
    def read(column: pl.Series, place: Place, _: Findings, __: Rules) -> pl.Series:
        require(column, place, "values", TEXT_KINDS)
        text = as_text(column).str.strip_chars()
        text = text.str.to_uppercase() if upper else text
        fits = text.str.contains(pattern) & (text.str.len_chars() <= ADDRESS_MAX)
        return text.set(~fits.fill_null(value=False), None)

    return read


def _stock(column: pl.Series, place: Place, findings: Findings, rules: Rules) -> pl.Series:
    pieces = as_numbers(column, "stocks", place, findings, rules)
    usable = (pieces >= 0) & (pieces <= STOCK_MAX) & (pieces == pieces.floor())
    return pieces.set(~usable.fill_null(value=False), None).cast(pl.Int64)


def _times(column: pl.Series, place: Place, _: Findings, __: Rules) -> pl.Series:
    if column.null_count() == len(column):
        return column.cast(pl.Int64, strict=False)
    ms = parse_times(column, place, _LAST_MS).ms
    return ms.set((ms <= 0).fill_null(value=False), None)


_READERS: Mapping[str, tuple[Callable[..., pl.Series], str]] = {
    "currency": (_matching(_CURRENCY, upper=True), "three letters, as in ISO 4217,"),
    "stock": (_stock, f"whole numbers from 0 to {STOCK_MAX}"),
    "image": (_matching(_ADDRESS), "addresses that begin with https://, http:// or /"),
    "url": (_matching(_ADDRESS), "addresses that begin with https://, http:// or /"),
    "valid_from": (_times, "times after 1970"),
    "valid_until": (_times, "times after 1970"),
}
