"""Filter expressions over the attributes of items, as values that can be compared, hashed and therefore cached.

What a condition means. A value of an item is a set of elements: a list has its own, any other value is the only one of
its set, an absent attribute (or a null) is no set at all. Elements are strings, numbers and booleans; a string in the
form of RFC 3339 with an offset is a time, and that a number: its milliseconds since the epoch. So a time is the same
instant however it is written, and compares with epoch milliseconds. Numbers are compared as float64.

    eq, in, any_of     some element equals the value, or one of the values
    ne                 the opposite of `eq`
    lt, lte, gt, gte   some element is a number or a time, and is less than the value, …
    all_of             each of the values equals some element
    exists             the attribute is there, or with the value false: is not there

On an attribute that the item lacks every condition is false, but for `ne` and `exists` false. `not` is the complement:
an item that lacks the attribute is in `{"not": …}` of any condition that is false for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from app.times import is_rfc3339, parse_rfc3339

ITEM_ID = "item_id"
AVAILABLE = "available"
SPECIAL_FIELDS = (ITEM_ID, AVAILABLE)
"""Fields of every item: its id, and whether it may be recommended now."""

Scalar = str | int | float | bool


class Operator(StrEnum):
    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    ANY_OF = "any_of"
    ALL_OF = "all_of"
    EXISTS = "exists"


ORDERING = frozenset({Operator.LT, Operator.LTE, Operator.GT, Operator.GTE})


class Kind(StrEnum):
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"


class Element(NamedTuple):
    """One comparable value. The kind keeps `true` and 1 apart, which Python holds for equal."""

    kind: Kind
    value: str | float | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """`elements` holds the value or the values that the operator compares with, in the order given."""

    field: str
    operator: Operator
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Each of them holds; of none: every item."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of them holds; of none: no item."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    filter: "Filter"


Filter = Condition | All | AnyOf | Not


def condition(field: str, operator: Operator | str, value: Scalar | Sequence[Scalar]) -> Condition:
    """
    >>> condition("released", "lt", "1970-01-01T00:00:01Z").elements
    (Element(kind=<Kind.NUMBER: 'number'>, value=1000.0),)
    """
    values: Sequence[Scalar] = [value] if isinstance(value, str | int | float) else value
    if field == ITEM_ID:  # an id may look like a time
        elements = tuple(Element(Kind.STRING, str(value)) for value in values)
    else:
        elements = tuple(element_of(value) for value in values)
    return Condition(field, Operator(operator), elements)


def element_of(value: Scalar) -> Element:
    """
    >>> element_of(True), element_of(1)
    (Element(kind=<Kind.BOOLEAN: 'boolean'>, value=True), Element(kind=<Kind.NUMBER: 'number'>, value=1.0))
    """
    if isinstance(value, bool):
        return Element(Kind.BOOLEAN, value)
    if isinstance(value, str):
        time_ms = time_of(value)
        return Element(Kind.STRING, value) if time_ms is None else Element(Kind.NUMBER, time_ms)
    return Element(Kind.NUMBER, float(value) + 0.0)  # −0 and 0 are one number, and shall be one pattern of bits


@lru_cache(maxsize=16_384)  # many items share a day
def time_of(text: str) -> float | None:
    """Milliseconds since the epoch where the text is a time in RFC 3339 with an offset.

    >>> time_of("1970-01-01T01:00:01.5+01:00"), time_of("1970-01-01")
    (1500.0, None)
    """
    if len(text) < 20 or text[4] != "-" or not is_rfc3339(text):  # the first two spare the pattern almost all texts
        return None
    try:
        return parse_rfc3339(text) / 1000
    except ValueError:  # the form of a time, but no such day: a text like any other
        return None


def conditions(filter: Filter, pointer: str = "") -> Iterator[tuple[Condition, str]]:
    """The conditions of an expression, each with the JSON pointer under which it stands."""
    match filter:
        case Condition():
            yield filter, pointer
        case Not():
            yield from conditions(filter.filter, f"{pointer}/not")
        case All() | AnyOf():
            name = "all" if isinstance(filter, All) else "any"
            for place, part in enumerate(filter.filters):
                yield from conditions(part, f"{pointer}/{name}/{place}")
