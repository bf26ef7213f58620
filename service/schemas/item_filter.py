"""What a request says of the items that it wants: the filter, and the fields that answers show of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, PlainValidator, TypeAdapter, WithJsonSchema, model_validator

from service.artifact.items.catalogue_item import STEPS_MAX, path_of
from service.artifact.items.filter_conditions import BOUNDS, SETS
from service.schemas.body import Body
from service.schemas.values import Name, without_control_characters

VALUES_MAX = 64
_ALL_MAX = 16

_Text = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(without_control_characters)]
_Steps = Annotated[list[Name], Field(min_length=1, max_length=STEPS_MAX, description="A category path, step by step.")]


def _by_type(**arms: Any) -> tuple[PlainValidator, WithJsonSchema]:
    """Returns what validates a value by the type that fits its JSON type, so that a fault is told once and in place.

    Args:
        arms: A type by the Python type of the values that it validates: `str`, `list` or `dict`.
    """
    adapters = {kind: TypeAdapter(arm) for kind, arm in arms.items()}

    def validated(value: Any) -> Any:
        adapter = adapters.get(type(value).__name__)
        if adapter is None:
            raise ValueError("neither " + " nor ".join(_JSON_NAMES[kind] for kind in adapters))
        return adapter.validate_python(value, strict=True)

    return PlainValidator(validated), WithJsonSchema({"anyOf": [one.json_schema() for one in adapters.values()]})


_JSON_NAMES = {"list": "a list", "dict": "an object", "str": "a text"}
# A text, or the steps of a category path, which become the text.
_Value = Annotated[
    str, *_by_type(str=_Text, list=_Steps), AfterValidator(lambda v: v if isinstance(v, str) else path_of(v))
]
_Values = Annotated[list[_Value], Field(min_length=1, max_length=VALUES_MAX)]
_Bound = Annotated[float | None, Field(allow_inf_nan=False)]


class FilterCondition(Body):
    """What a field of an item must be: some of a set of values, or a number inside bounds."""

    any: _Values | None = Field(None, description="The item has one of these values.")
    all: Annotated[list[_Value], Field(min_length=1, max_length=_ALL_MAX)] | None = Field(
        None, description="The item has each of these values."
    )
    none: _Values | None = Field(None, description="The item has none of these values; it may have none at all.")
    gte: _Bound = Field(None, description="The number is this or greater.")
    gt: _Bound = Field(None, description="The number is greater.")
    lte: _Bound = Field(None, description="The number is this or smaller.")
    lt: _Bound = Field(None, description="The number is smaller.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = self.model_dump(exclude_none=True).keys()
        if not said or (said & set(SETS) and said & set(BOUNDS)):
            raise ValueError(f"give some of {', '.join(SETS)}, or some of {', '.join(BOUNDS)}")
        return self


def _as_said(condition: Any) -> Any:
    return condition.model_dump(exclude_none=True) if isinstance(condition, FilterCondition) else condition


_Condition = Annotated[Any, *_by_type(list=_Values, dict=FilterCondition), AfterValidator(_as_said)]
ItemFilterBody = Annotated[dict[Name, _Condition], Field(max_length=8)]
FILTER_DESCRIPTION = (
    "Restricts the list to items that meet a condition on each field: a list of values, of which the "
    'item has one, e.g. `{"category": ["Sci-Fi", "Fashion > Women"]}`, or an object with the sets `any`, `all` and '
    '`none`, or with the bounds `gte`, `gt`, `lte` and `lt`, e.g. `{"price": {"gte": 10, "lt": 50}, "brand": '
    '{"none": ["acme"]}}`. A category path, as one text or as a list of steps, holds for everything below it. '
    "Fields are `category`, `brand`, `attribute`, `currency`, and the numbers `price` and `stock`."
)
# What answers may show of an item.
ItemField = Literal[
    "title", "category", "paths", "brand", "attributes", "price", "currency", "stock", "image", "url", "valid_from",
    "valid_until",
]  # fmt: skip
ITEM_FIELDS: tuple[ItemField, ...] = get_args(ItemField)
_SHOWN = "What items of the answer show beside their id, rank and score; the title, where it is left out"
FieldsBody = Annotated[list[ItemField], Field(max_length=len(ITEM_FIELDS))]
FIELDS_DESCRIPTION = f'{_SHOWN}, e.g. `["title", "price", "image", "url"]`.'
FIELDS_PATTERN = f"^({'|'.join(ITEM_FIELDS)})(,({'|'.join(ITEM_FIELDS)}))*$"
QUERY_FIELDS_DESCRIPTION = f"{_SHOWN}. Names with commas between them: `title,price,image,url`."


def fields_of_query(fields: str | None) -> Sequence[ItemField] | None:
    """Returns the fields that a query parameter names, which `FIELDS_PATTERN` has checked."""
    return None if fields is None else [name for name in ITEM_FIELDS if name in fields.split(",")]
