"""Times in and out; the expected numbers are from `date -u +%s`, not from the code."""

import pytest
from pydantic import ValidationError

from app.api.schemas.events import EventBody
from app.times import TimestampOutOfRange, format_timestamp, parse_timestamp

EVENT = {"user_id": "u", "item_id": "i"}


@pytest.mark.parametrize(
    ("value", "timestamp_us"),
    [
        ("2026-11-24T09:15:02.120Z", 1795511702_120000),
        ("2026-11-24t09:15:02.120z", 1795511702_120000),
        ("2026-11-24 10:15:02.12+01:00", 1795511702_120000),
        ("2026-11-24T09:15:02.1200019Z", 1795511702_120001),
        ("2026-11-24T00:15:02-09:00", 1795511702_000000),
        (1795511702_120, 1795511702_120000),
        (0, 0),
    ],
)
def test_time_is_read_to_the_microsecond(value: object, timestamp_us: int) -> None:
    assert parse_timestamp(value) == timestamp_us


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-24",
        "2026-11-24T09:15:02",
        "2026-13-01T00:00:00Z",
        "2026-W01-1T00:00:00Z",
        "1795511702",
        "",
        1.5,
        True,
        None,
    ],
)
def test_anything_else_is_no_time(value: object) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|no point in time"):
        parse_timestamp(value)


@pytest.mark.parametrize("value", [-1, 10**18, "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+01:00"])
def test_time_that_no_event_can_have_is_out_of_range(value: object) -> None:
    with pytest.raises(TimestampOutOfRange):
        parse_timestamp(value)


def test_answered_time_is_read_as_itself() -> None:
    for timestamp_us in (0, 1, 1795511702_120001, 253_402_300_799_999_999):
        assert parse_timestamp(format_timestamp(timestamp_us)) == timestamp_us


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", float("inf")),
        ("value", "1"),
        ("sequence", True),
        ("position", 0),
        ("item_id", 7),
        ("properties", {"a": None}),
    ],
)
def test_nothing_is_converted_silently(field: str, value: object) -> None:
    EventBody.model_validate(EVENT)
    with pytest.raises(ValidationError, match=field):
        EventBody.model_validate({**EVENT, field: value})
