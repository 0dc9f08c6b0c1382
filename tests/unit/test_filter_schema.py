"""What a filter may look like in a body, and what is said of one that may not."""

from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from app.api.problems import faults_of
from app.api.schemas.filters import FilterField
from app.state.filters import All, AnyOf, Condition, Element, Kind, Not, Operator

FILTER: TypeAdapter[Any] = TypeAdapter(FilterField)
GOOD = {"field": "x", "op": "eq", "value": 1}


def nested(depth: int) -> dict[str, Any]:
    """A condition is 1 deep."""
    return GOOD if depth == 1 else {"not": nested(depth - 1)}


def test_expression_becomes_values_that_compare() -> None:
    body = {"all": [{"any": [GOOD]}, {"not": {"field": "y", "op": "in", "value": ["a", True, 2]}}]}
    condition = Condition("x", Operator.EQ, (Element(Kind.NUMBER, 1.0),))
    values = (Element(Kind.STRING, "a"), Element(Kind.BOOLEAN, True), Element(Kind.NUMBER, 2.0))
    expected = All((AnyOf((condition,)), Not(Condition("y", Operator.IN, values))))
    assert FILTER.validate_python(body) == expected
    assert hash(FILTER.validate_python(body)) == hash(expected)


def test_id_that_looks_like_a_time_stays_an_id() -> None:
    made = FILTER.validate_python({"field": "item_id", "op": "eq", "value": "2026-01-01T00:00:00Z"})
    assert made.elements == (Element(Kind.STRING, "2026-01-01T00:00:00Z"),)


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"field": "x", "op": "like", "value": "a"}, "/op", "Input should be 'eq'"),
        ({"field": "x", "op": "eq"}, "/value", "Field required"),
        ({"field": "", "op": "eq", "value": 1}, "/field", "String should have at least 1"),
        ({"field": "x", "op": "eq", "value": None}, "/value", "Must be a string, a number or a boolean"),
        ({"field": "x", "op": "eq", "value": ["a"]}, "/value", "Must be a string, a number or a boolean"),
        ({"field": "x", "op": "eq", "value": 2.0**54}, "/value", "Must lie within"),
        ({"field": "x", "op": "eq", "value": "a" * 1025}, "/value", "Must have at most 1024"),
        ({"field": "x", "op": "in", "value": "a"}, "/value", "Must be a list of 1 to 1000"),
        ({"field": "x", "op": "in", "value": []}, "/value", "Must be a list of 1 to 1000"),
        ({"field": "x", "op": "in", "value": [1] * 1001}, "/value", "Must be a list of 1 to 1000"),
        ({"field": "x", "op": "in", "value": [1, {}]}, "/value", "Value 1 of the list must be"),
        ({"field": "x", "op": "lt", "value": "a"}, "/value", "Must be a number or a time"),
        ({"field": "x", "op": "lt", "value": True}, "/value", "Must be a number or a time"),
        ({"field": "x", "op": "exists", "value": 1}, "/value", "Must be true or false"),
        ({"all": [GOOD], "any": [GOOD]}, "/any", "Extra inputs"),
        ({"all": [GOOD, {"not": {"x": 1, **GOOD}}]}, "/all/1/not/x", "Extra inputs"),
        ({"all": [3]}, "/all/0", "Input should be an object"),
        ({"all": [GOOD] * 51}, "/all", "List should have at most 50"),
        ({"all": [{"any": [GOOD] * 26}] * 2}, "", "Has 52 conditions, at most 50"),
        (nested(6), "", "Is nested deeper than 5"),
    ],
)
def test_fault_is_pointed_at(body: Any, pointer: str, detail: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FILTER.validate_json(orjson.dumps(body))
    (fault,) = faults_of(raised.value.errors(), body)
    assert fault.pointer == pointer
    assert fault.detail.startswith(detail)


def test_limits_themselves_are_allowed() -> None:
    FILTER.validate_python(nested(5))
    FILTER.validate_python({"all": [{"any": [GOOD] * 25}] * 2})
    FILTER.validate_python({"field": "x", "op": "in", "value": list(range(1000))})
