"""Times as others write them, RFC 3339 or epoch milliseconds, and as we keep them, microseconds since the epoch."""

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
MAX_TIMESTAMP_MS = 253_402_300_799_999  # the last millisecond of year 9999, where RFC 3339 ends
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class TimestampOutOfRange(ValueError):
    """A well-formed time that no event can have."""


def parse_timestamp(value: object) -> int:
    """Microseconds since the epoch from RFC 3339 with an offset, or from epoch milliseconds; digits beyond are cut.

    >>> parse_timestamp("1970-01-01T01:00:00.000002+01:00")
    2
    >>> parse_timestamp(1_700_000_000_123)
    1700000000123000

    Raises:
        TimestampOutOfRange: times before 1970 or after 9999.
        ValueError: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        timestamp_us = value * 1000
    elif isinstance(value, str) and is_rfc3339(value):
        timestamp_us = parse_rfc3339(value)
    else:
        raise ValueError("must be RFC 3339 with an offset, like 2026-11-24T09:15:02.120Z, or whole epoch milliseconds")
    if not 0 <= timestamp_us <= MAX_TIMESTAMP_MS * 1000 + 999:
        raise TimestampOutOfRange("must lie between the years 1970 and 9999")
    return timestamp_us


def is_rfc3339(value: str) -> bool:
    """Whether the text has the form of RFC 3339 with an offset; the 31st of February has it too."""
    return _RFC3339.fullmatch(value) is not None


def parse_rfc3339(value: str) -> int:
    """Microseconds since the epoch, of any year from 1 to 9999; negative before 1970.

    >>> parse_rfc3339("1969-12-31T23:59:59Z")
    -1000000

    Raises:
        ValueError: the text is not of that form, or no such day or hour exists.
    """
    if not is_rfc3339(value):
        raise ValueError("must be RFC 3339 with an offset, like 2026-11-24T09:15:02.120Z")
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError(f"is no point in time: {error}") from None
    return (moment - _EPOCH) // _MICROSECOND


def format_timestamp(timestamp_us: int) -> str:
    """RFC 3339 in UTC with microseconds.

    >>> format_timestamp(1_700_000_000_123_000)
    '2023-11-14T22:13:20.123000Z'
    """
    return (_EPOCH + timestamp_us * _MICROSECOND).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
