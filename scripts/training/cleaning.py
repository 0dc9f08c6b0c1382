"""From a table of raw events to sequences: what is dropped, why, and what remains.

The table is read twice as a stream. The first pass counts what has no usable id or time and finds the distinct ids;
the second turns ids into integers on the way in, so that only integers are ever held for every row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from app.artifacts.event_types import DeclaredUse, with_uses
from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType
from scripts.training.interactions import DataError
from scripts.training.times import TimeUnit, read_time

MAX_ID_LENGTH = 256
MAX_EVENT_TYPES = 256
DEFAULT_EVENT_TYPE = "interaction"
US_PER_HOUR = 3_600_000_000


@dataclass(frozen=True)
class Columns:
    """The names that the columns have in the table; only user and item must be there."""

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    event_type: str = "event_type"
    value: str = "value"
    sequence: str = "sequence"
    """Orders events of one time, as in the service's event log; where it is absent, file order does."""


@dataclass(frozen=True)
class CleaningRules:
    """What to drop. 0 switches the two caps off."""

    time_unit: TimeUnit = "auto"
    min_item_events: int = 5
    min_user_events: int = 3
    max_user_events: int = 0
    max_events_per_hour: int = 0
    count_only: tuple[str, ...] = ()
    """Event types that do not enter sequences, besides those that the default map only counts."""
    event_uses: Mapping[str, DeclaredUse] = field(default_factory=dict)
    """What a file says of event types; it stands above the default map and below `count_only`."""


@dataclass(frozen=True)
class Dropped:
    """One reason and the number of rows that it took."""

    reason: str
    rows: int


@dataclass(frozen=True)
class Cleaned:
    """`rows` has the columns of interactions.parquet, sorted by user, time, file order; ids are sorted as text."""

    rows: pl.DataFrame
    user_ids: list[str]
    item_ids: list[str]
    event_types: dict[str, EventType]
    has_clock: bool
    time_unit: str
    num_rows_read: int
    dropped: list[Dropped]


def clean(
    table: pl.LazyFrame, columns: Columns, rules: CleaningRules, progress: Callable[[str], object] = lambda _: None
) -> Cleaned:
    """Clean a table of events. Rows of equal time keep the table's order, as all rows do where there is no time.

    Args:
        table: one row per event, ids as text or whole numbers.
        columns: where the table keeps what.
        rules: what to drop.
        progress: told the name of each step as it begins.

    Raises:
        DataError: a required column is missing, times of no known unit, or nothing remains.
    """
    try:
        return _clean(table, columns, rules, progress)
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        raise DataError(f"the table cannot be read: {error}") from error


def _clean(table: pl.LazyFrame, columns: Columns, rules: CleaningRules, progress: Callable[[str], object]) -> Cleaned:
    progress("reading times")
    events, has_clock, time_unit = _events(table, columns, rules)
    if rules.max_events_per_hour and not has_clock:
        raise DataError("a cap on events per hour needs rows with a time; these have only an order")

    progress("finding ids")
    kept = events.filter(pl.col("reason").is_null())
    reasons, users, items, types = pl.collect_all(
        [
            events.group_by("reason").agg(pl.len()),
            kept.select(pl.col("user").unique().sort()),
            kept.select(pl.col("item").unique().sort()),
            events.select(pl.col("event_type").unique().sort()),
        ],
        engine="streaming",
    )
    counts = dict(zip(reasons["reason"], reasons["len"], strict=True))
    num_rows = sum(counts.values())
    dropped = [Dropped(reason, counts[reason]) for reason in _REASONS if reason in counts]
    if counts.get(None, 0) == 0:
        raise DataError(_nothing_remains(num_rows, dropped))

    progress("reading events")
    event_types = _event_type_map(types["event_type"].to_list(), rules)
    indices = {name: entry.index for name, entry in event_types.items()}
    rows = kept.select(
        pl.col("user").cast(pl.Enum(users["user"])).to_physical().cast(pl.UInt32),
        pl.col("item").cast(pl.Enum(items["item"])).to_physical().cast(pl.UInt32),
        "time",
        pl.col("event_type").replace_strict(indices, return_dtype=pl.UInt8),
        "value",
        "sequence",
    ).collect(engine="streaming")

    if has_clock:
        progress("dropping duplicates")
        before = rows.height
        rows = rows.unique(maintain_order=True, keep="first")
        dropped.append(Dropped("exact duplicate of an earlier row", before - rows.height))
    progress("sorting")
    rows = rows.sort("user", "time", "sequence", maintain_order=True)

    rows, not_human = _drop_inhuman_users(rows, rules)
    rows, rare = _drop_rare(rows, rules)
    dropped += not_human + rare
    if rows.height == 0:
        raise DataError(_nothing_remains(num_rows, dropped))

    rows, kept_users = _renumber(rows, "user", first_index=0)
    rows, kept_items = _renumber(rows, "item", first_index=1)
    return Cleaned(
        rows=rows.select(
            pl.col("user").alias("user_index"),
            pl.col("item").alias("item_index"),
            (pl.col("time") // 1000 if has_clock else pl.int_range(pl.len()).over("user")).alias("timestamp_ms"),
            "event_type",
            "value",
        ),
        user_ids=users["user"].gather(kept_users).to_list(),
        item_ids=items["item"].gather(kept_items).to_list(),
        event_types=event_types,
        has_clock=has_clock,
        time_unit=time_unit,
        num_rows_read=num_rows,
        dropped=dropped,
    )


_MISSING = "user or item id missing"
_TOO_LONG = f"id longer than {MAX_ID_LENGTH} characters"
_NO_TIME = "time missing, unreadable or outside 1970–2100"
_COUNT_ONLY = "event of a type that is only counted"
_BELOW = "value missing or below the threshold of the event type"
_REASONS = (_MISSING, _TOO_LONG, _NO_TIME, _COUNT_ONLY, _BELOW)


def _events(table: pl.LazyFrame, columns: Columns, rules: CleaningRules) -> tuple[pl.LazyFrame, bool, str]:
    """Columns user, item (text), time (µs, or an order), event_type, value, sequence; reason: why a row is unusable."""
    schema = table.collect_schema()
    for name, option in ((columns.user, "--user-column"), (columns.item, "--item-column")):
        if name not in schema:
            raise DataError(f"no column {name!r}; the table has {schema.names()}: name the right one with {option}")
    for name, default, option in (
        (columns.timestamp, Columns.timestamp, "--timestamp-column"),
        (columns.event_type, Columns.event_type, "--event-type-column"),
        (columns.value, Columns.value, "--value-column"),
    ):
        if name != default and name not in schema:
            raise DataError(f"no column {name!r}; the table has {schema.names()}: name the right one with {option}")

    time, has_clock, time_unit = read_time(table, columns.timestamp, rules.time_unit)
    has_type, has_value = columns.event_type in schema, columns.value in schema
    declared = with_uses(DEFAULT_EVENT_TYPES, rules.event_uses)
    count_only = [name for name, entry in declared.items() if not entry.enters_sequence]
    below = [
        (pl.col("event_type") == name) & (pl.col("value").is_null() | (pl.col("value") < entry.threshold))
        for name, entry in declared.items()
        if entry.threshold is not None
    ]
    event_type = pl.col(columns.event_type).cast(pl.String) if has_type else pl.lit(None, pl.String)
    value = pl.col(columns.value).cast(pl.Float32, strict=False) if has_value else pl.lit(None, pl.Float32)
    has_sequence = columns.sequence in schema and schema[columns.sequence].is_integer()
    sequence = pl.col(columns.sequence).cast(pl.UInt16, strict=False) if has_sequence else pl.lit(0, pl.UInt16)
    events = table.select(
        id_text(columns.user, schema[columns.user]).alias("user"),
        id_text(columns.item, schema[columns.item]).alias("item"),
        time.alias("time"),
        event_type.fill_null(DEFAULT_EVENT_TYPE).alias("event_type"),
        value.fill_nan(None).alias("value"),
        sequence.fill_null(0).alias("sequence"),
    )
    lengths = pl.max_horizontal(pl.col("user").str.len_chars(), pl.col("item").str.len_chars())
    reason = (
        pl.when(pl.any_horizontal(pl.col("user", "item").is_null() | (pl.col("user", "item") == "")))
        .then(pl.lit(_MISSING))
        .when(lengths > MAX_ID_LENGTH)
        .then(pl.lit(_TOO_LONG))
        .when(pl.col("time").is_null())
        .then(pl.lit(_NO_TIME))
        .when(pl.col("event_type").is_in([*count_only, *rules.count_only]))
        .then(pl.lit(_COUNT_ONLY))
        .when(pl.any_horizontal(pl.lit(False), *below))
        .then(pl.lit(_BELOW))
    )
    return events.with_columns(reason=reason), has_clock, time_unit


def id_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """The id as text. A column of whole numbers with gaps often arrives as floats: 7.0 is "7", NaN is missing."""
    column = pl.col(name)
    if dtype.is_float():
        whole = pl.when(column == column.round()).then(column)
        return whole.cast(pl.Int64, strict=False).cast(pl.String)
    if dtype == pl.String or dtype.is_integer() or dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    raise DataError(f"column {name!r} holds {dtype}; ids are text or whole numbers")


def _event_type_map(names: Sequence[str], rules: CleaningRules) -> dict[str, EventType]:
    """The default map and, by name, one further index for each other type that the data hold or the rules name."""
    event_types = dict(DEFAULT_EVENT_TYPES)
    following = 1 + max(entry.index for entry in event_types.values())
    new = [name for name in sorted({*names, *rules.count_only, *rules.event_uses}) if name not in event_types]
    if following + len(new) > MAX_EVENT_TYPES:
        raise DataError(
            f"{len(new)} event types found, at most {MAX_EVENT_TYPES - following} are possible; is the column right?"
        )
    for index, name in enumerate(new, start=following):
        event_types[name] = EventType(index=index)
    event_types = with_uses(event_types, rules.event_uses)
    for name in rules.count_only:
        event_types[name] = event_types[name].model_copy(update={"enters_sequence": False})
    return event_types


def _drop_inhuman_users(rows: pl.DataFrame, rules: CleaningRules) -> tuple[pl.DataFrame, list[Dropped]]:
    """Drop users with more events than a cap, in all or in any hour. Sorted rows in, sorted rows out."""
    dropped = []
    if rules.max_user_events:
        kept = rows.filter(pl.len().over("user") <= rules.max_user_events)
        dropped.append(Dropped(f"user with more than {rules.max_user_events} events", rows.height - kept.height))
        rows = kept
    if rules.max_events_per_hour:
        # An hour holds too many where the event `cap` places later comes within the hour.
        span = pl.col("time").shift(-rules.max_events_per_hour).over("user") - pl.col("time")
        kept = rows.filter(~(span < US_PER_HOUR).any().over("user").fill_null(False))
        dropped.append(
            Dropped(f"user with more than {rules.max_events_per_hour} events in an hour", rows.height - kept.height)
        )
        rows = kept
    return rows, dropped


def _drop_rare(rows: pl.DataFrame, rules: CleaningRules) -> tuple[pl.DataFrame, list[Dropped]]:
    """Drop items, then users, below their minimum, again and again until neither drops anything."""
    users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
    alive: NDArray[np.int64] = np.arange(rows.height)
    by_item = by_user = 0
    while True:
        common = alive[np.bincount(items[alive])[items[alive]] >= rules.min_item_events]
        active = common[np.bincount(users[common])[users[common]] >= rules.min_user_events]
        by_item += len(alive) - len(common)
        by_user += len(common) - len(active)
        if len(active) == len(alive):
            break
        alive = active
    dropped = [
        Dropped(f"item with fewer than {rules.min_item_events} events", by_item),
        Dropped(f"user with fewer than {rules.min_user_events} events", by_user),
    ]
    return (rows if len(alive) == rows.height else rows[alive]), dropped


def _renumber(rows: pl.DataFrame, column: str, *, first_index: int) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Close the gaps that dropped ids left; the numbers that remained, in order, come along."""
    codes = rows[column].to_numpy()
    remaining = np.flatnonzero(np.bincount(codes))
    new_codes = np.zeros(int(remaining[-1]) + 1, np.uint32)
    new_codes[remaining] = np.arange(first_index, first_index + len(remaining))
    return rows.with_columns(pl.Series(column, new_codes[codes])), remaining


def _nothing_remains(num_rows: int, dropped: Sequence[Dropped]) -> str:
    reasons = "; ".join(f"{entry.reason}: {entry.rows:,}" for entry in dropped if entry.rows) or "the table is empty"
    return f"nothing remains of {num_rows:,} rows ({reasons}); lower the minimum counts or check the columns"
