"""Sequences and splits. Expected parts are read off by eye from the small histories below."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scripts.training.interactions import DataError, Interactions, PreparedData, Split
from scripts.training.preparation import write_prepared

SCHEMA = {
    "user_index": pl.UInt32,
    "item_index": pl.UInt32,
    "timestamp_ms": pl.Int64,
    "event_type": pl.UInt8,
    "value": pl.Float32,
}


def prepared(
    folder: Path, histories: list[list[tuple[int, int]]], split: Split = "leave-one-out", **times: int
) -> PreparedData:
    """Data whose user u has the (item, time) pairs of histories[u]; items 1…5."""
    rows = [(user, item, time, 1, None) for user, history in enumerate(histories) for item, time in history]
    return write_prepared(
        folder,
        name="toy",
        rows=pl.DataFrame(rows, schema=SCHEMA, orient="row"),
        item_ids=["a", "b", "c", "d", "e"],
        attributes=[{"title": "A"}, {}, {}, {}, {}],
        user_ids=[f"u{user}" for user in range(len(histories))],
        has_clock=True,
        exclude_seen=True,
        split=split,
        split_times_ms={"validation": times["validation"], "test": times["test"]} if times else {},
    )


def as_lists(interactions: Interactions) -> list[list[int]]:
    return [interactions.sequence(user)[0].tolist() for user in range(interactions.num_users)]


def test_leave_one_out_holds_back_the_last_two_events_of_users_with_three(tmp_path: Path) -> None:
    data = prepared(tmp_path, [[(1, 10), (2, 20), (3, 30), (4, 40)], [(5, 10), (5, 20)], [(3, 1), (2, 2), (1, 3)]])

    assert as_lists(data.train) == [[1, 2], [5, 5], [3]]
    validation, test = data.cases("validation"), data.cases("test")
    assert validation.user_indices.tolist() == test.user_indices.tolist() == [0, 2]
    assert (as_lists(validation.histories), validation.targets.tolist()) == ([[1, 2], [3]], [3, 2])
    # The validation item is history at test time.
    assert (as_lists(test.histories), test.targets.tolist()) == ([[1, 2, 3], [3, 2]], [4, 1])


def test_temporal_split_asks_for_the_first_event_after_each_time(tmp_path: Path) -> None:
    data = prepared(
        tmp_path,
        [
            [(1, 10), (2, 60), (3, 70), (4, 90), (5, 95)],  # validates on 2, tests on 4
            [(1, 10), (2, 20)],  # nothing after either time
            [(3, 55), (4, 80)],  # no history before 50: no validation case
            [(5, 85)],  # no history at all: no case
        ],
        "temporal",
        validation=50,
        test=80,
    )

    assert as_lists(data.train) == [[1], [1, 2], [], []]
    validation, test = data.first_cases("validation"), data.first_cases("test")
    assert (validation.user_indices.tolist(), validation.targets.tolist()) == ([0], [2])
    assert as_lists(validation.histories) == [[1]]
    assert (test.user_indices.tolist(), test.targets.tolist()) == ([0, 2], [4, 4])
    assert as_lists(test.histories) == [[1, 2, 3], [3]]


def test_temporal_cases_ask_for_every_event_with_the_history_as_it_had_grown(tmp_path: Path) -> None:
    histories = [
        [(1, 10), (2, 60), (3, 70), (4, 90), (5, 95)],
        [(1, 10), (2, 20)],  # nothing after either time
        [(5, 85), (1, 86)],  # the first event of all has no history
    ]
    data = prepared(tmp_path / "temporal", histories, "temporal", validation=50, test=80)
    validation, test = data.cases("validation"), data.cases("test")
    assert (as_lists(validation.histories), validation.targets.tolist()) == ([[1], [1, 2]], [2, 3])
    assert (as_lists(test.histories), test.targets.tolist()) == ([[1, 2, 3], [1, 2, 3, 4], [5]], [4, 5, 1])
    assert test.user_indices.tolist() == [0, 0, 2]
    some = data.cases("test", at_most=2, seed=1)
    assert len(some) == 2
    assert set(some.targets.tolist()) <= {4, 5, 1}
    with pytest.raises(DataError, match="belong to a temporal split"):
        prepared(tmp_path / "loo", histories).first_cases("test")


def test_events_of_one_time_are_not_history_of_each_other(tmp_path: Path) -> None:
    """Two receipts, each a time: whoever is asked for the second knows the first alone."""
    histories = [[(1, 10), (2, 10), (3, 60), (4, 60), (5, 70)], [(1, 65), (2, 65)]]
    cases = prepared(tmp_path, histories, "temporal", validation=50, test=80).cases("validation")
    assert as_lists(cases.histories) == [[1, 2], [1, 2], [1, 2, 3, 4]]
    assert (cases.targets.tolist(), cases.user_indices.tolist()) == ([3, 4, 5], [0, 0, 0])


def test_a_cap_keeps_the_newest_events() -> None:
    interactions = Interactions(
        items=np.array([9, 1, 2, 3], np.int32),
        timestamps_ms=np.array([5, 10, 20, 30]),
        event_types=np.array([1, 1, 4, 1], np.uint8),
        offsets=np.array([0, 1, 4]),
    )
    capped = interactions.item_sequence(1, cap=2)
    assert (capped.items, capped.timestamps_ms, capped.event_types) == ([2, 3], [20, 30], [4, 1])
    assert interactions.item_sequence(1, cap=9).items == [1, 2, 3]
    assert interactions.item_counts(9).tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 0, 1]


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = prepared(tmp_path, [[(1, 10), (2, 20)]])
    loaded = PreparedData.load(tmp_path)
    assert (loaded.item_ids, loaded.user_ids) == (["a", "b", "c", "d", "e"], ["u0"])
    assert loaded.attributes == [{"title": "A"}, {}, {}, {}, {}]
    assert loaded.fingerprint == written.fingerprint
    assert loaded.event_types["impression"].enters_sequence is False


def test_changed_data_are_refused_and_another_split_has_another_fingerprint(tmp_path: Path) -> None:
    histories = [[(1, 10), (2, 20), (3, 30)]]
    first = prepared(tmp_path / "a", histories)
    assert first.fingerprint != prepared(tmp_path / "b", histories, "temporal", validation=15, test=25).fingerprint

    path = tmp_path / "a" / "interactions.parquet"
    pl.read_parquet(path).with_columns(item_index=pl.lit(2, pl.UInt32)).write_parquet(path)
    with pytest.raises(DataError, match="prepare it again"):
        PreparedData.load(tmp_path / "a")


def test_a_folder_without_data_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"python -m scripts\.prepare"):
        PreparedData.load(tmp_path)


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame([(1, 1, 5, 1, None), (0, 1, 5, 1, None)], schema=SCHEMA, orient="row")
    with pytest.raises(DataError, match="sorted by user_index"):
        write_prepared(
            tmp_path, name="x", rows=rows, item_ids=["a"], attributes=[{}], user_ids=["u", "v"], has_clock=True,
            exclude_seen=True,
        )  # fmt: skip
    assert not (tmp_path / "prepared.json").exists()


def test_prepared_json_is_readable_by_people(tmp_path: Path) -> None:
    prepared(tmp_path, [[(1, 10)]])
    content = json.loads((tmp_path / "prepared.json").read_text())
    assert (content["num_users"], content["num_items"], content["num_interactions"]) == (1, 5, 1)
