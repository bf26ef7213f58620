"""Roles of columns, the names under which they are looked for, and the parsing of `--map` and `--type-map`.

The command line imports this module before anything else, so it must not import a data library.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from model.data.errors import DataError

# Roles of log columns → names in `events`.
LOG_COLUMNS = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "type": "event_type",
    "value": "value",
    "quantity": "quantity",
    "session": "session_id",
    "scene": "scene",
    "query": "query",
}
ITEM_ROLES = (
    "title", "category", "brand", "attributes", "text", "price", "currency", "stock", "image", "url", "valid_from",
    "valid_until",
)  # fmt: skip

# Other names of the same columns, as `spelled` writes them, the most telling first.
_USER = (
    "userid", "user", "uid", "visitorid", "visitor", "customerid", "customer", "customernumber", "clientid", "memberid",
    "accountid", "shopperid", "buyerid", "reviewerid", "userpseudoid", "anonymousid",
)  # fmt: skip
_ITEM = (
    "itemid", "item", "productid", "product", "sku", "articleid", "article", "movieid", "asin", "isbn", "goodsid",
    "trackid", "songid", "bookid", "newsid", "videoid", "contentid", "stockcode", "materialid",
)  # fmt: skip
LOG_ALIASES: dict[str, tuple[str, ...]] = {
    "user": _USER,
    "item": _ITEM,
    "time": (
        "timestamp", "timestampms", "eventtimestamp", "eventtime", "time", "ts", "datetime", "unixtime",
        "unixreviewtime", "createdat", "occurredat", "date", "eventdate", "invoicedate", "orderdate",
    ),
    "type": (
        "eventtype", "event", "eventname", "type", "action", "actiontype", "behavior", "behaviour", "behaviortype",
        "feedbacktype", "interaction",
    ),
    "value": ("value", "rating", "stars", "score"),
    "quantity": ("quantity", "qty"),
    "session": ("sessionid", "session", "visitid"),
    "scene": ("scene",),
    "query": ("query", "searchquery", "searchterm", "searchphrase"),
}  # fmt: skip
ITEM_ALIASES: dict[str, tuple[str, ...]] = {
    "item": (*_ITEM, "id", "handle"),
    "title": ("title", "name", "itemname", "itemtitle", "productname", "producttitle", "movietitle", "booktitle"),
    "category": (
        "categorypath", "category", "categories", "productcategory", "producttype", "itemcategory", "genres", "genre",
        "tags", "googleproductcategory",
    ),
    "brand": ("brand", "itembrand", "brandname", "vendor", "manufacturer"),
    "attributes": ("attributes", "labels"),
    "text": ("text", "description", "body"),
    "price": ("price", "itemprice", "variantprice"),
    "currency": ("currency", "currencycode"),
    "stock": ("stock",),
    "image": ("image", "imageurl", "imagelink"),
    "url": ("url", "producturl", "link"),
    "valid_from": ("validfrom",),
    "valid_until": ("validuntil",),
}  # fmt: skip
USER_ALIASES = {"user": (*_USER, "id")}
# Roles that a wrong guess would spoil: several candidates are refused. Of other roles the first candidate is taken.
_ONE_CANDIDATE = ("user", "item", "time", "type")
# A value of one of these names makes an event without a type a rating.
RATINGS = ("rating", "stars", "score")


def spelled(name: str) -> str:
    """Returns a column name without upper case, blanks and punctuation, so that userId equals USER_ID."""
    return re.sub(r"[\W_]+", "", name.casefold())


def find_columns(
    present: Sequence[str],
    named: Mapping[str, str],
    defaults: Mapping[str, str],
    aliases: Mapping[str, Sequence[str]],
    file: str,
    partitions: Collection[str] = (),
) -> dict[str, str]:
    """Finds the column of each role: as the user named it, else by its default name, else by an alias.

    Args:
        present: The columns of the table.
        named: Role → column, as the user named them; an empty name means that the role has no column.
        defaults: Role → default name.
        aliases: Role → other names, as `spelled` writes them.
        file: Name of the file, for messages.
        partitions: Columns that are names of folders; columns of the file itself go before them.

    Returns:
        Role → column. A column that the user named is in it even if the table lacks it.

    Raises:
        DataError: Several columns may have the same role.
    """
    found = {role: column for role, column in named.items() if column and role in aliases}
    free = [name for name in present if name not in found.values()]
    for role, names in aliases.items():
        if role in named:
            continue
        if defaults.get(role) in free:
            found[role] = defaults[role]
            continue
        known = sorted((name for name in free if spelled(name) in names), key=lambda name: names.index(spelled(name)))
        known = [name for name in known if name not in partitions] or known
        if len(known) > 1 and role in _ONE_CANDIDATE:
            raise DataError(
                f"several columns may be the {role}: {', '.join(known)}",
                where=file,
                fix=f"name the right one: --map {role}={known[0]}",
            )
        if known:
            found[role] = known[0]
    return found


def found_by_alias(found: Mapping[str, str], named: Mapping[str, str], defaults: Mapping[str, str]) -> str:
    """Returns a note that names the columns that were found by an alias, or "" if there are none."""
    guessed = [(c, r) for r, c in found.items() if r not in named and c != defaults.get(r)]
    return ", ".join(f"{column} as {role}" for column, role in guessed)


def _pairs(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields each `LEFT=RIGHT` of a list with commas as (part, left, right), stripped; right is None without a `=`."""
    for part in filter(None, (p.strip() for p in text.split(","))):
        left, equals, right = (p.strip() for p in part.partition("="))
        yield part, left, right if equals else None


def parse_columns(text: str, roles: Sequence[str] = (*LOG_COLUMNS, *ITEM_ROLES)) -> dict[str, str]:
    """Parses the value of `--map`.

    Args:
        text: `ROLE=COLUMN` parts with commas between them, such as `user=uid,item=sku`. `time=` means that no column
            has this role.
        roles: The roles that may be named.

    Returns:
        Role → column name.

    Raises:
        ValueError: A part is malformed, or a role is unknown or given twice.
    """
    columns: dict[str, str] = {}
    for part, role, column in _pairs(text):
        if column is None or (not column and role in ("user", "item")):
            raise ValueError(f"{part!r} is not ROLE=COLUMN")
        if role not in roles:
            raise ValueError(f"{role!r} is not a role; choose from {', '.join(roles)}")
        if role in columns:
            raise ValueError(f"{role!r} is given twice")
        columns[role] = column
    return columns


def parse_items_columns(text: str) -> dict[str, str]:
    """Parses the value of `--items-map`, as `parse_columns` does.

    Raises:
        ValueError: A part is malformed, or a role is unknown or given twice.
    """
    return parse_columns(text, ("item", *ITEM_ROLES))


def parse_type_map(text: str) -> dict[str, str]:
    """Parses the value of `--type-map`.

    Args:
        text: `TYPE=TYPE` parts with commas between them, such as `view_item=view,add_to_cart=cart`.

    Returns:
        Event type of the log, in lower case → event type of this program.

    Raises:
        ValueError: A part is malformed, a type is given twice, or the right side is no event type.
    """
    from service.artifact.features import EVENT_TYPES, SIGNAL_TYPES

    types: dict[str, str] = {}
    known = [*EVENT_TYPES, *sorted(SIGNAL_TYPES - set(EVENT_TYPES))]
    for part, left, right in _pairs(text):
        if right is None or not left:
            raise ValueError(f"{part!r} is not TYPE=TYPE")
        theirs, ours = left.lower(), right.lower()
        if ours not in known:
            raise ValueError(f"{ours!r} is not an event type; choose from {', '.join(known)}")
        if theirs in types:
            raise ValueError(f"{theirs!r} is given twice")
        types[theirs] = ours
    return types
