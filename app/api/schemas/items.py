"""Bodies and answers of `/items`."""

import math
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator

from app.api.schemas.common import Body, Id
from app.state.filters import SPECIAL_FIELDS

MAX_ATTRIBUTES = 64
MAX_TEXT = 4096
MAX_LIST = 256
MAX_ITEM_BYTES = 16_384
MAX_NUMBER = 2**53

_SINGLE = [{"type": "string", "maxLength": MAX_TEXT}, {"type": "number"}, {"type": "boolean"}]
_LIST = {"type": "array", "maxItems": MAX_LIST, "items": {"anyOf": _SINGLE[:2]}}


def _is_single(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value) and abs(value) <= MAX_NUMBER
    return False


def _is_attribute(value: object) -> object:
    if isinstance(value, list):
        if len(value) > MAX_LIST or not all(_is_single(part) for part in value):
            raise ValueError(f"a list has at most {MAX_LIST} strings or numbers")
    elif not isinstance(value, bool) and not _is_single(value):
        raise ValueError(
            f"must be a string of at most {MAX_TEXT} characters, a number within ±2^53, a boolean, "
            "or a list of strings or numbers"
        )
    return value


def _is_attribute_or_null(value: object) -> object:
    return value if value is None else _is_attribute(value)


AttributeName = Annotated[str, Field(min_length=1, max_length=64)]
AttributeValue = Annotated[Any, BeforeValidator(_is_attribute), WithJsonSchema({"anyOf": [*_SINGLE, _LIST]})]
AttributeChange = Annotated[
    Any, BeforeValidator(_is_attribute_or_null), WithJsonSchema({"anyOf": [*_SINGLE, _LIST, {"type": "null"}]})
]


class _WithAttributes(Body):
    attributes: dict[AttributeName, Any]

    @model_validator(mode="after")
    def _attributes_are_ours_to_keep(self) -> Self:
        special = [name for name in SPECIAL_FIELDS if name in self.attributes]
        if special:
            raise ValueError(f"{special[0]} is no attribute: it stands beside them")
        if len(orjson.dumps(self.attributes)) > MAX_ITEM_BYTES:
            raise ValueError(f"the attributes exceed {MAX_ITEM_BYTES} bytes")
        return self


class ItemBody(_WithAttributes):
    """The whole item: attributes that it had before and that are not named are gone, the artifact's too.

    A time is a string in RFC 3339 with an offset, or a number of milliseconds since the epoch.
    """

    attributes: dict[AttributeName, AttributeValue] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)
    available: bool = Field(True, description="False: the item is never recommended, until it is available again.")


class BulkItemBody(ItemBody):
    """One of many whole items."""

    item_id: Id


class ItemBatch(Body):
    """One way to send many. (The route reads them one by one, so that each can be rejected alone.)"""

    items: list[BulkItemBody]


class ItemPatchBody(_WithAttributes):
    """What changes: named attributes get a new value, or go where it is null; the others stay as they are."""

    attributes: dict[AttributeName, AttributeChange] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)
    available: bool | None = Field(None, description="Null: as it was.")


class ItemAnswer(BaseModel):
    """`available`: may be recommended now. `in_model`: the live model has learnt the item from behaviour."""

    item_id: str
    attributes: dict[str, Any]
    available: bool
    in_model: bool


class ItemsAnswer(BaseModel):
    """`next_cursor` continues the list; null at its end."""

    model_version: str | None
    items: list[ItemAnswer]
    next_cursor: str | None


class RejectedItem(BaseModel):
    """`index` counts the items of the request from 0; `pointer` leads to the fault in the body."""

    index: int
    code: str
    detail: str
    pointer: str


class ItemWarning(BaseModel):
    """Something about stored items that the sender will want to know; `indices` count the items from 0."""

    code: Literal["not_in_model"]
    detail: str
    indices: list[int]


class ItemsPutAnswer(BaseModel):
    """accepted + unchanged + len(rejected) is the number of items sent."""

    accepted: int
    unchanged: int
    rejected: list[RejectedItem]
    warnings: list[ItemWarning]
