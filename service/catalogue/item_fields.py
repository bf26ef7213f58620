"""The fields of an item as files and callers write them, checked and converted to those of `CatalogueItem`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from service.artifact.items.catalogue_item import STEPS_MAX, categories_of
from service.common.times import time_ms

TEXT_MAX = 4096
ADDRESS_MAX = 2048
PRICE_MAX = 1e12
STOCK_MAX = 2**31 - 1
_CURRENCY = re.compile(r"[A-Z]{3}")
# No other scheme: pages make links of these.
_ADDRESS = re.compile(r"(https?://|/)[^\x00-\x20\x7f-\x9f]*")

# The names that files and callers use, and what reads them.
_Reader = Callable[[str, Any], dict[str, Any]]


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `CatalogueItem` that a JSON object gives; null takes a value away.

    Args:
        row: The object. Members that are no field of an item are left out.

    Raises:
        ValueError: A value cannot be used; the message names the field and what it may be.
    """
    fields: dict[str, Any] = {}
    for name, read in FIELDS.items():
        if name in row:
            fields |= read(name, row[name])
    first, end = fields.get("valid_from_ms"), fields.get("valid_until_ms")
    if first is not None and end is not None and first >= end:
        raise ValueError("valid_until must be later than valid_from")
    return fields


def _text(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, str | None) or len(value or "") > TEXT_MAX:
        raise ValueError(f"{name} is a text of at most {TEXT_MAX} characters")
    return {name: value}


def _texts(name: str, value: Any) -> dict[str, Any]:
    values = [] if value is None else value
    if not isinstance(values, list) or not all(isinstance(v, str) and len(v) <= TEXT_MAX for v in values):
        raise ValueError(f"{name} is a list of texts of at most {TEXT_MAX} characters each")
    return {name: tuple(values)}


def _categories(name: str, value: Any) -> dict[str, Any]:
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list) or not all(map(_is_category, values)):
        raise ValueError(
            f"{name} is a list of texts of at most {TEXT_MAX} characters each, or of paths: "
            f'"A > B" or a list of 1 to {STEPS_MAX} steps'
        )
    return dict(categories_of(values))


def _is_category(value: Any) -> bool:
    steps = value if isinstance(value, list) and 0 < len(value) <= STEPS_MAX else [value]
    return all(isinstance(step, str) and len(step) <= TEXT_MAX for step in steps)


def _price(name: str, value: Any) -> dict[str, Any]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and 0 <= value <= PRICE_MAX):
        raise ValueError(f"{name} is a number from 0 to {PRICE_MAX:g}")
    return {name: None if value is None else float(value)}


def _stock(name: str, value: Any) -> dict[str, Any]:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 0 <= value <= STOCK_MAX):
        raise ValueError(f"{name} is a whole number from 0 to {STOCK_MAX}")
    return {name: value}


def _currency(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not (isinstance(value, str) and _CURRENCY.fullmatch(value)):
        raise ValueError(f"{name} is three capital letters, as in ISO 4217")
    return {name: value}


def _address(name: str, value: Any) -> dict[str, Any]:
    usable = isinstance(value, str) and len(value) <= ADDRESS_MAX and _ADDRESS.fullmatch(value)
    if value is not None and not usable:
        raise ValueError(
            f"{name} is an address of at most {ADDRESS_MAX} characters that begins with https://, http:// or /"
        )
    return {name: value}


def _time(name: str, value: Any) -> dict[str, Any]:
    try:
        return {f"{name}_ms": None if value is None else time_ms(value)}
    except ValueError as error:
        raise ValueError(f"{name} cannot be used: {error}") from None


FIELDS: Mapping[str, _Reader] = {
    "title": _text,
    "category": _categories,
    "brand": _text,
    "attributes": _texts,
    "price": _price,
    "currency": _currency,
    "stock": _stock,
    "image": _address,
    "url": _address,
    "valid_from": _time,
    "valid_until": _time,
}
