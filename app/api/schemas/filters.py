"""Filter expressions as they stand in a body."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.api.schemas.common import Body, Scalar
from app.state.filters import ORDERING, All, AnyOf, Filter, Kind, Not, Operator, condition, conditions, element_of

MAX_DEPTH = 5
MAX_CONDITIONS = 50
MAX_VALUES = 1000
MAX_TEXT = 1024
MAX_NUMBER = 2**53
"""Up to here every whole number is a float64 of its own."""
OF_LISTS = frozenset({Operator.IN, Operator.ANY_OF, Operator.ALL_OF})


class ConditionBody(Body):
    """One comparison. A list attribute is a set of elements, any other value the only element of its set.

    `eq`, `in` and `any_of` ask whether some element is the value, or one of the values; `ne` is the opposite of `eq`;
    `all_of` whether every value is among the elements; `lt`, `lte`, `gt`, `gte` whether some element, a number or a
    time, is less or greater; `exists` whether the attribute is there. On an attribute that an item lacks all are false
    but `ne` and `exists` false.
    """

    field: str = Field(min_length=1, max_length=256, description="An attribute, `item_id` or `available`.")
    op: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "any_of", "all_of", "exists"]
    value: Scalar | list[Scalar] = Field(
        description="A list for `in`, `any_of` and `all_of`, a boolean for `exists`, a number or a time for `lt`, "
        "`lte`, `gt` and `gte`; else any single value. A time is RFC 3339 with an offset, or epoch milliseconds."
    )

    @field_validator("value", mode="plain", json_schema_input_type=Scalar | list[Scalar])
    @classmethod
    def _fits_the_operator(cls, value: Any, info: ValidationInfo) -> Any:
        operator = info.data.get("op")
        if operator is None:  # which is a fault of its own
            return value
        if operator in OF_LISTS:
            if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
                raise ValueError(f"must be a list of 1 to {MAX_VALUES} values for {operator}")
            for place, part in enumerate(value):
                if (fault := _fault_of(part)) is not None:
                    raise ValueError(f"value {place} of the list {fault}")
            return tuple(value)
        if (fault := _fault_of(value)) is not None:
            raise ValueError(fault)
        if operator == Operator.EXISTS and not isinstance(value, bool):
            raise ValueError("must be true or false for exists")
        if operator in ORDERING and element_of(value).kind is not Kind.NUMBER:
            raise ValueError(f"must be a number or a time, RFC 3339 with an offset, for {operator}")
        return value


def _fault_of(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if len(value) <= MAX_TEXT else f"must have at most {MAX_TEXT} characters"
    if isinstance(value, int | float):
        return None if -MAX_NUMBER <= value <= MAX_NUMBER else "must lie within ±2^53"
    return "must be a string, a number or a boolean"


class AllBody(Body):
    """Every one of them holds."""

    all: "list[FilterBody]" = Field(max_length=MAX_CONDITIONS)


class AnyBody(Body):
    """At least one of them holds."""

    any: "list[FilterBody]" = Field(max_length=MAX_CONDITIONS)


class NotBody(Body):
    """It does not hold."""

    not_: "FilterBody" = Field(alias="not")


def _kind_of_node(value: object) -> str:
    names = value if isinstance(value, dict) else ()
    return next((f"{name} node" for name in ("all", "any", "not") if name in names), "condition node")


FilterBody = Annotated[
    Annotated[AllBody, Tag("all node")]
    | Annotated[AnyBody, Tag("any node")]
    | Annotated[NotBody, Tag("not node")]
    | Annotated[ConditionBody, Tag("condition node")],
    Discriminator(_kind_of_node),
]
"""The discriminator names the faults of the node that was meant; its tags are no names of fields, so that no pointer
follows them."""


def to_filter(body: AllBody | AnyBody | NotBody | ConditionBody) -> Filter:
    """The domain's expression. Raises PydanticCustomError where it is too deep or too large."""
    made = _to_filter(body, 1)
    num_conditions = sum(1 for _ in conditions(made))
    if num_conditions > MAX_CONDITIONS:
        raise PydanticCustomError(
            "filter_too_large",
            "Has {found} conditions, at most {limit} are taken",
            {"found": num_conditions, "limit": MAX_CONDITIONS},
        )
    return made


def _to_filter(body: AllBody | AnyBody | NotBody | ConditionBody, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise PydanticCustomError(
            "filter_too_deep", "Is nested deeper than {limit}, the conditions counted", {"limit": MAX_DEPTH}
        )
    match body:
        case ConditionBody():
            return condition(body.field, body.op, body.value)
        case NotBody():
            return Not(_to_filter(body.not_, depth + 1))
        case AllBody():
            return All(tuple(_to_filter(part, depth + 1) for part in body.all))
        case AnyBody():
            return AnyOf(tuple(_to_filter(part, depth + 1) for part in body.any))


if TYPE_CHECKING:
    FilterField = Filter
else:
    FilterField = Annotated[FilterBody, AfterValidator(to_filter)]
"""Stands in the body as JSON and is an `app.state.filters.Filter` from here on."""
