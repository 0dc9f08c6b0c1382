"""What is dropped and why, on tables small enough to count by eye."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.artifacts.event_types import DeclaredUse
from scripts.training.cleaning import Cleaned, CleaningRules, Columns, clean
from scripts.training.interactions import DataError
from scripts.training.times import TimeUnit

KEEP_ALL = CleaningRules(min_item_events=1, min_user_events=1)
SECOND = 1_700_000_000


def cleaned(rows: Sequence[Sequence[Any]], names: Sequence[str], rules: CleaningRules = KEEP_ALL) -> Cleaned:
    table = pl.LazyFrame([*rows], schema=[*names], orient="row", infer_schema_length=None)
    return clean(table, Columns(), rules)


def sequences(result: Cleaned) -> dict[str, list[str]]:
    """User id → item ids in order."""
    found: dict[str, list[str]] = {}
    for user, item in result.rows.select("user_index", "item_index").iter_rows():
        found.setdefault(result.user_ids[user], []).append(result.item_ids[item - 1])
    return found


def dropped(result: Cleaned) -> list[tuple[str, int]]:
    return [(entry.reason, entry.rows) for entry in result.dropped if entry.rows]


def test_every_unusable_row_is_counted_under_one_reason() -> None:
    result = cleaned(
        [
            ("u", "a", SECOND),
            (None, "a", SECOND),
            ("u", "", SECOND),
            ("u", "x" * 257, SECOND),
            ("u", "x" * 256, SECOND + 1),
            ("u", "b", None),
            ("u", "b", 0),
            (None, "b", None),  # two faults, one reason
            ("u", "a", SECOND),
        ],
        ["user_id", "item_id", "timestamp"],
    )
    assert sequences(result) == {"u": ["a", "x" * 256]}
    assert dropped(result) == [
        ("user or item id missing", 3),
        ("id longer than 256 characters", 1),
        ("time missing, unreadable or outside 1970–2100", 2),
        ("exact duplicate of an earlier row", 1),
    ]
    assert result.num_rows_read == 9 == result.rows.height + sum(entry.rows for entry in result.dropped)


def test_events_are_sorted_by_time_and_ties_keep_file_order() -> None:
    rows = [
        ("v", "c", SECOND + 5),
        ("u", "b", SECOND + 1),
        ("u", "a", SECOND),
        ("v", "a", SECOND + 5),
        ("u", "c", SECOND),
    ]
    result = cleaned(rows, ["user_id", "item_id", "timestamp"])
    assert sequences(result) == {"u": ["a", "c", "b"], "v": ["c", "a"]}
    assert result.rows["timestamp_ms"].to_list() == [1000 * (SECOND + plus) for plus in (0, 0, 1, 5, 5)]


def test_a_sequence_column_orders_events_of_one_time() -> None:
    rows = [("u", "b", SECOND, 2), ("u", "a", SECOND, 1), ("u", "c", SECOND + 1, 0)]
    assert sequences(cleaned(rows, ["user_id", "item_id", "timestamp", "sequence"])) == {"u": ["a", "b", "c"]}


def test_without_a_time_file_order_counts_and_repeats_are_no_duplicates() -> None:
    result = cleaned([("u", "b"), ("v", "a"), ("u", "a"), ("u", "b"), ("u", "b")], ["user_id", "item_id"])
    assert sequences(result) == {"u": ["b", "a", "b", "b"], "v": ["a"]}
    assert (result.has_clock, result.time_unit) == (False, "file order")
    assert result.rows["timestamp_ms"].to_list() == [0, 1, 2, 3, 0]


def test_small_numbers_are_an_order_without_a_clock() -> None:
    result = cleaned([("u", "b", 7), ("u", "a", 3), ("u", "a", 3)], ["user_id", "item_id", "timestamp"])
    assert sequences(result) == {"u": ["a", "a", "b"]}
    assert (result.has_clock, result.time_unit) == (False, "order")


@pytest.mark.parametrize(
    ("value", "unit", "expected_ms"),
    [
        (881_250_949, "s", 881_250_949_000),
        (881_250_949.0, "s", 881_250_949_000),
        (964_980_499_000, "ms", 964_980_499_000),
        (1_700_000_000_123_456, "us", 1_700_000_000_123),
        ("881250949", "s", 881_250_949_000),
        # 2026-11-24T09:15:02Z is 1795511702 by `date -u -d … +%s`.
        ("2026-11-24T09:15:02.120Z", "ISO 8601", 1_795_511_702_120),
        ("2026-11-24 10:15:02+01:00", "ISO 8601", 1_795_511_702_000),
        ("2026-11-24T09:15:02", "ISO 8601", 1_795_511_702_000),
        ("2026-11-24", "ISO 8601", 1_795_478_400_000),
    ],
)
def test_the_unit_of_time_is_recognised(value: object, unit: str, expected_ms: int) -> None:
    result = cleaned([("u", "a", value)], ["user_id", "item_id", "timestamp"])
    assert (result.time_unit, result.rows["timestamp_ms"].to_list()) == (unit, [expected_ms])


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_stated_unit_is_obeyed(unit: TimeUnit) -> None:
    rules = CleaningRules(time_unit=unit, min_item_events=1, min_user_events=1)
    result = cleaned([("u", "a", 50_000_000)], ["user_id", "item_id", "timestamp"], rules)
    assert result.rows["timestamp_ms"].to_list() == [{"s": 50_000_000_000, "ms": 50_000_000, "us": 50_000}[unit]]


def test_a_huge_number_is_unreadable_and_does_not_wrap_around() -> None:
    rows = [("u", "a", SECOND), ("u", "b", SECOND), ("u", "c", 2**62)]
    result = cleaned(rows, ["user_id", "item_id", "timestamp"])
    assert dropped(result) == [("time missing, unreadable or outside 1970–2100", 1)]


def test_text_that_is_no_time_is_an_error_with_what_was_expected() -> None:
    with pytest.raises(DataError, match="no value of column 'timestamp' reads as a time"):
        cleaned([("u", "a", "yesterday")], ["user_id", "item_id", "timestamp"])


def test_minimum_counts_are_applied_until_nothing_changes() -> None:
    # Item z has one event → dropped → user v has one left → dropped → item y has one left → dropped.
    rows = [("u", "x"), ("u", "x"), ("u", "y"), ("v", "y"), ("v", "z")]
    result = cleaned(rows, ["user_id", "item_id"], CleaningRules(min_item_events=2, min_user_events=2))
    assert sequences(result) == {"u": ["x", "x"]}
    assert (result.user_ids, result.item_ids) == (["u"], ["x"])
    assert dropped(result) == [("item with fewer than 2 events", 2), ("user with fewer than 2 events", 1)]


@given(
    st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef")), min_size=1, max_size=60),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_minimum_counts_leave_the_largest_table_that_meets_them(
    rows: list[tuple[str, str]], min_item: int, min_user: int
) -> None:
    left = rows
    while True:
        kept = [row for row in left if sum(other[1] == row[1] for other in left) >= min_item]
        kept = [row for row in kept if sum(other[0] == row[0] for other in kept) >= min_user]
        if kept == left:
            break
        left = kept
    rules = CleaningRules(min_item_events=min_item, min_user_events=min_user)
    if not left:
        with pytest.raises(DataError, match="nothing remains"):
            cleaned(rows, ["user_id", "item_id"], rules)
        return
    expected: dict[str, list[str]] = {}
    for user, item in left:
        expected.setdefault(user, []).append(item)
    assert sequences(cleaned(rows, ["user_id", "item_id"], rules)) == expected


def test_users_that_are_not_human_go_by_count_and_by_rate() -> None:
    slow = [("slow", f"i{place}", SECOND + 3600 * place) for place in range(4)]
    fast = [("fast", f"i{place}", SECOND + 1200 * place) for place in range(4)]  # 4 within the hour + 1 s
    many = [("many", f"i{place}", SECOND + 7200 * place) for place in range(6)]
    rules = CleaningRules(min_item_events=1, min_user_events=1, max_user_events=5, max_events_per_hour=2)
    result = cleaned(slow + fast + many, ["user_id", "item_id", "timestamp"], rules)
    assert list(sequences(result)) == ["slow"]
    assert dropped(result) == [("user with more than 5 events", 6), ("user with more than 2 events in an hour", 4)]


def test_only_counted_events_stay_out_and_new_types_get_an_index() -> None:
    rows = [("u", item, kind) for item, kind in (("a", "view"), ("b", "buy"), ("c", "impression"), ("d", None))]
    result = cleaned(rows, ["user_id", "item_id", "event_type"])
    assert sequences(result) == {"u": ["a", "b", "d"]}
    assert dropped(result) == [("event of a type that is only counted", 1)]
    indices = {name: entry.index for name, entry in result.event_types.items()}
    assert indices == {"interaction": 1, "impression": 2, "dismiss": 3, "buy": 4, "view": 5}
    assert result.rows["event_type"].to_list() == [5, 4, 1]

    rules = CleaningRules(min_item_events=1, min_user_events=1, count_only=("view",))
    result = cleaned(rows, ["user_id", "item_id", "event_type"], rules)
    assert sequences(result) == {"u": ["b", "d"]}
    assert result.event_types["view"].enters_sequence is False


def test_file_of_event_types_says_what_enters_sequences_here_as_in_the_service() -> None:
    rows = [
        ("u", "a", "view", None), ("u", "b", "watch", 0.4), ("u", "c", "watch", 0.5), ("u", "d", "watch", None),
        ("u", "e", "dislike", None),
    ]  # fmt: skip
    uses = {
        "watch": DeclaredUse(threshold=0.5),
        "dislike": DeclaredUse(use="negative", hides_days=7.0),
        "view": DeclaredUse(weight=0.5),
        "unseen": DeclaredUse(use="count"),
    }
    rules = CleaningRules(min_item_events=1, min_user_events=1, event_uses=uses)
    result = cleaned(rows, ["user_id", "item_id", "event_type", "value"], rules)
    assert sequences(result) == {"u": ["a", "c"]}
    assert dropped(result) == [
        ("event of a type that is only counted", 1),
        ("value missing or below the threshold of the event type", 2),
    ]
    types = result.event_types
    assert (types["watch"].threshold, types["dislike"].hides_days, types["view"].weight) == (0.5, 7.0, 0.5)
    assert {name: entry.index for name, entry in types.items()} == {
        "interaction": 1, "impression": 2, "dismiss": 3, "dislike": 4, "unseen": 5, "view": 6, "watch": 7
    }  # fmt: skip


def test_whole_numbers_that_arrive_as_floats_are_whole_numbers() -> None:
    result = cleaned([(7.0, 12), (None, 12), (7.5, 12)], ["user_id", "item_id"])
    assert sequences(result) == {"7": ["12"]}
    assert dropped(result) == [("user or item id missing", 2)]


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"no column 'item_id'; the table has \['user_id', 'sku'\].*--item-column"):
        cleaned([("u", "a")], ["user_id", "sku"])
