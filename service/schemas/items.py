"""Bodies of the routes of items, and what is read of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from service.artifact.items.catalogue_item import STEPS_MAX
from service.catalogue.item_fields import ADDRESS_MAX, PRICE_MAX, STOCK_MAX, TEXT_MAX, fields_of
from service.catalogue.shop_items import Change, Op
from service.common.request_errors import InvalidRequest
from service.common.times import iso_of
from service.schemas.body import Body
from service.schemas.parsing import parse
from service.schemas.values import Id, TimeMs, Value

CATEGORIES_MAX, ATTRIBUTES_MAX, LIKE_MAX, VECTOR_MAX = 32, 64, 64, 2048
_TIMES = ("valid_from", "valid_until")

Text = Annotated[str, Field(max_length=TEXT_MAX)]
Address = Annotated[str, Field(max_length=ADDRESS_MAX, pattern=r"^(https?://|/)[^\u0000-\u0020\u007f-\u009f]*$")]
Category = Text | Annotated[list[Text], Field(min_length=1, max_length=STEPS_MAX)]


class ItemFields(Body):
    """What is stored of an item. A field that is left out, or null, is that of the updates file, else of the export."""

    title: Text | None = Field(None, description="Its title.")
    text: Text | None = Field(None, description="A description. It helps to place a new item, and is not shown.")
    category: Annotated[list[Category], Field(max_length=CATEGORIES_MAX)] | None = Field(
        None, description='Its categories: names, and paths as "Fashion > Women > Shoes" or as a list of steps.'
    )
    brand: Text | None = Field(None, description="Its brand.")
    price: Annotated[float, Field(ge=0, le=PRICE_MAX, allow_inf_nan=False)] | None = Field(
        None, description="Its price, in `currency`."
    )
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(
        None, description="Three capital letters, as in ISO 4217."
    )
    stock: Annotated[int, Field(ge=0, le=STOCK_MAX)] | None = Field(
        None, description="Pieces in stock. An item with 0 is not listed."
    )
    in_stock: bool | None = Field(None, description="False: it is not listed. True takes back what the file says.")
    image: Address | None = Field(None, description="Address of its picture.")
    url: Address | None = Field(None, description="Address of its page.")
    attributes: Annotated[list[Text], Field(max_length=ATTRIBUTES_MAX)] | None = Field(
        None, description="Values that filters may name as `attribute`."
    )
    valid_from: TimeMs | None = Field(None, description="It is listed from then on.")
    valid_until: TimeMs | None = Field(None, description="It is not listed any more from then on.")
    like: Annotated[list[Id], Field(max_length=LIKE_MAX)] | None = Field(
        None, description="Exported items that a new item resembles: it is placed among them."
    )
    vector: Annotated[list[Value], Field(min_length=1, max_length=VECTOR_MAX)] | None = Field(
        None,
        description="A vector of the shop's own making, such as an image's. A new item is placed among the exported "
        "items whose stored vectors, of the same length, are nearest.",
    )

    def stored(self, *, nulls: bool) -> dict[str, Any]:
        """Returns the fields as they are stored.

        Args:
            nulls: Whether fields that are null are kept: in a patch they take a value away.

        Raises:
            InvalidRequest: The values do not fit each other.
        """
        names = (name for name in ItemFields.model_fields if name in self.model_fields_set)
        values = {name: getattr(self, name) for name in names if nulls or getattr(self, name) is not None}
        for name in _TIMES:
            if values.get(name) is not None:
                values[name] = iso_of(values[name])
        try:
            fields_of(values)
        except ValueError as error:
            fault = {"loc": [], "message": str(error), "type": "value_error"}
            raise InvalidRequest("the item is not valid; see errors", [fault]) from error
        return values


class ItemRequest(ItemFields):
    """The fields of an item."""


class ItemLine(ItemFields):
    """One line of an import."""

    item_id: Id = Field(description="The item.")
    op: Op = Field(
        "put",
        description="put replaces what is stored of the item, patch only the fields that are named (null takes one "
        "away); disable, enable and delete take no fields.",
    )
    if_version: int | None = Field(
        None, ge=0, le=2**53, description="Makes the change only if the item has this version; 0: if nothing is stored."
    )


def read_line(line: bytes) -> Change:
    """Reads one line of an import.

    Raises:
        RequestError: It is no JSON, or not valid.
    """
    found = parse(ItemLine, line)
    fields = found.stored(nulls=found.op == "patch")
    if fields and found.op not in ("put", "patch"):
        raise InvalidRequest(f"{found.op} takes no fields")
    return Change(found.item_id, found.op, fields, found.if_version)
