"""What a column of times means: a clock in some unit, ISO 8601 text, or only an order."""

from typing import Literal

import polars as pl

from scripts.training.interactions import DataError

TimeUnit = Literal["auto", "s", "ms", "us", "order"]

ORDER_LIMIT = 1e8
"""Numbers below it are no epoch time of any unit after 1973: they are an order."""
UPPER_LIMITS = {"s": 1e11, "ms": 1e14, "us": 1e17}
"""A number of the unit lies below its limit and above the one before, for times between 1973 and 5138."""
US_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
US_AT_2100 = 4_102_444_800_000_000

_ISO_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%:z",
    "%Y-%m-%d %H:%M:%S%.f%:z",
    "%Y-%m-%dT%H:%M:%S%.f%z",
    "%Y-%m-%d %H:%M:%S%.f%z",
)
_ISO_FORMATS_WITHOUT_ZONE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def read_time(table: pl.LazyFrame, column: str, unit: TimeUnit) -> tuple[pl.Expr, bool, str]:
    """How to read the column: (expression, has a clock, the unit in words).

    The expression gives microseconds since 1970 (UTC where no zone is written), or the order as int64; null where a
    value cannot be read or lies outside 1970–2100. Without the column, or with nothing in it, it gives the row number.

    Raises:
        DataError: a column that is no time, or numbers that do not fit a unit.
    """
    schema = table.collect_schema()
    row_number = pl.int_range(pl.len(), dtype=pl.Int64)
    if column not in schema:
        return row_number, False, "file order"
    dtype = schema[column]
    if isinstance(dtype, pl.Datetime | pl.Date):
        if unit not in ("auto", "us"):
            raise DataError(f"column {column!r} holds {dtype}, which needs no --time-unit {unit}; leave it out")
        return _within_clock(pl.col(column).cast(pl.Datetime("us")).cast(pl.Int64)), True, str(dtype)
    if dtype != pl.Null and not dtype.is_numeric() and dtype != pl.String:
        raise DataError(f"column {column!r} holds {dtype}; times are numbers, ISO 8601 text or datetimes")

    number = pl.col(column).cast(pl.Float64, strict=False).fill_nan(None) if dtype != pl.Int64 else pl.col(column)
    iso = _iso_us(pl.col(column)) if dtype == pl.String else pl.lit(None, pl.Int64)
    numbers, texts, largest, middle = (
        table.select(
            number.count().alias("numbers"),
            iso.count().alias("texts"),
            number.max().alias("largest"),
            number.median().alias("middle"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    if numbers == texts == 0:
        if _is_empty(table, column):
            return row_number, False, "file order"
        raise DataError(f"no value of column {column!r} reads as a time; numbers or ISO 8601 are expected")
    if texts > numbers:
        if unit != "auto":
            raise DataError(f"column {column!r} holds ISO 8601 times, which need no --time-unit {unit}; leave it out")
        return _within_clock(iso), True, "ISO 8601"
    if unit == "auto":
        unit = _unit_of(column, largest, middle)
    if unit == "order":
        return number.cast(pl.Int64, strict=False), False, "order"
    # The range is checked before the unit is applied: a stray huge number must not wrap around to a plausible time.
    return (_within_clock(number, US_PER_UNIT[unit]) * US_PER_UNIT[unit]).cast(pl.Int64, strict=False), True, unit


def _unit_of(column: str, largest: float, middle: float) -> TimeUnit:
    """The unit of epoch times by their size. The median decides among the clocks, so that strays cannot."""
    if largest < ORDER_LIMIT:
        return "order"
    if middle < UPPER_LIMITS["s"]:
        return "s"
    if middle < UPPER_LIMITS["ms"]:
        return "ms"
    if middle < UPPER_LIMITS["us"]:
        return "us"
    raise DataError(f"half of column {column!r} is above {UPPER_LIMITS['us']:.0e}: convert nanoseconds to microseconds")


def _within_clock(time: pl.Expr, us_per_unit: int = 1) -> pl.Expr:
    return pl.when((time > 0) & (time < US_AT_2100 // us_per_unit)).then(time)


def _iso_us(text: pl.Expr) -> pl.Expr:
    """Microseconds since 1970 of ISO 8601 text, null where it is none."""
    text = text.str.strip_chars().str.replace(r"[zZ]$", "+00:00")
    readings = [
        text.str.to_datetime(layout, time_unit="us", time_zone="UTC", strict=False).cast(pl.Int64)
        for layout in _ISO_FORMATS
    ]
    readings += [
        text.str.to_datetime(layout, time_unit="us", strict=False).cast(pl.Int64)
        for layout in _ISO_FORMATS_WITHOUT_ZONE
    ]
    readings.append(text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).cast(pl.Int64))
    return pl.coalesce(readings)


def _is_empty(table: pl.LazyFrame, column: str) -> bool:
    return int(table.select(pl.col(column).count()).collect(engine="streaming").item()) == 0
