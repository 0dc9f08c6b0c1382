"""What the public JSON is made of. Bodies and answers are not the domain's objects; the routes translate."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.times import MAX_TIMESTAMP_MS, parse_timestamp

MAX_HISTORY = 1000

Id = Annotated[str, Field(min_length=1, max_length=256)]
ScenarioName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
EventTypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Timestamp = Annotated[
    int,
    BeforeValidator(parse_timestamp),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0, "maximum": MAX_TIMESTAMP_MS},
            ],
            "description": "RFC 3339 with an offset, or epoch milliseconds.",
        }
    ),
]
"""Arrives as text or number, is microseconds since the epoch from here on."""

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def _is_scalar(value: object) -> object:
    if not isinstance(value, (str, bool, int)) and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError("must be a string, a number or a boolean")
    return value


Scalar = Annotated[Any, BeforeValidator(_is_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""One validator instead of a union, so that a bad value is one fault and not one per type that it is not."""


class Body(BaseModel):
    """Unknown fields are refused: a misspelt `exclude_seen` must not be ignored. Nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """Query parameters; unknown ones are refused like unknown fields."""

    model_config = ConfigDict(extra="forbid")
