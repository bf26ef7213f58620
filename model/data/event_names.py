"""The names of event types, and what shops and trackers call them."""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings
from model.data.column_types import TEXT_KINDS, as_text, require
from model.data.rules import Rules
from model.data.times import Place
from service.artifact.features import EVENT_TYPES, SIGNAL_TYPES

KNOWN_TYPES = frozenset(EVENT_TYPES) | SIGNAL_TYPES | {"search"}
# GA4 and its e-commerce events, Google Retail, Segment and Shopify, Taobao, RetailRocket, OTTO, and plain words. Names
# are in lower case with `_` between words.
_NAMES = {
    "view": "view_item item_view viewed views pv pageview page_view detail_page_view product_view view_product "
    "product_viewed viewed_product product_detail_view",
    "click": "select_item product_clicked clicks clicked item_click fav",
    "cart": "add_to_cart addtocart add_cart cart_add added_to_cart carts product_added product_added_to_cart "
    "basket add_to_basket",
    "purchase": "buy bought purchased purchases transaction order orders sale order_completed purchase_complete "
    "checkout_completed",
    "rating": "rate rated review",
    "impression": "view_item_list product_list_viewed impressions exposure",
    "search": "view_search_results search_submitted products_searched searched",
}
ALIASES = {alias: event_type for event_type, aliases in _NAMES.items() for alias in aliases.split()}
_SHOWN = 5


def event_types(column: pl.Series, default: str, place: Place, findings: Findings, rules: Rules) -> pl.Series:
    """Normalises event types: lower case, and the data set's name where a source has another one.

    Args:
        column: [rows] event types, null where missing.
        default: The type of events without one.
        place: Where the column comes from.
        findings: Receives notes on missing types, on names that were replaced, and on types that no model knows.
        rules: Names of this source (`types`), which go before the known ones.

    Returns:
        [rows] text without nulls; unknown types are kept.

    Raises:
        DataError: The column holds no names.
    """
    require(column, place, "event types", TEXT_KINDS)
    given = as_text(column).str.strip_chars().str.to_lowercase()
    given = given.set((given == "").fill_null(value=False), None)
    if given.null_count():
        findings.note(f"{given.null_count()} events without a type are taken as {default!r}")
    types = given.fill_null(default)
    own = {name.strip().lower(): meant for name, meant in rules.types.items()}
    spare = sorted(own.keys() - set(types))
    if spare:
        findings.note(f"--type-map names types that the log does not have: {', '.join(spare)}")
    names = types.unique(maintain_order=True).to_list()
    meant = {name: own.get(name) or ("" if name in KNOWN_TYPES else ALIASES.get(_key(name), "")) for name in names}
    replaced = {name: new for name, new in meant.items() if new and new != name}
    if replaced:
        counts = types.filter(types.is_in(sorted(replaced))).value_counts(sort=True)
        listed = [f"{name!r} as {replaced[name]} ({count})" for name, count in counts.iter_rows()]
        findings.note(f"event types that have another name here: {_few(listed)}")
        types = types.replace(replaced)
    unknown = types.filter(~types.is_in(sorted(KNOWN_TYPES)))
    if len(unknown):
        counts = unknown.value_counts(sort=True)
        listed = [f"{name!r} ({count})" for name, count in counts.iter_rows()]
        first = counts[types.name][0]
        findings.note(
            f"{counts.height} unknown event types, kept and read as 'other': {_few(listed)}; "
            f"say what they mean with --type-map {first}=view"
        )
    return types


def _key(name: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def _few(listed: list[str]) -> str:
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
