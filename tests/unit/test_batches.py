"""Batches hold every step once, hardly any padding, and the same again for the same seed and epoch."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from scripts.training.batches import cut_windows, epoch_batches
from scripts.training.interactions import Interactions


def interactions(lengths: list[int]) -> Interactions:
    """Item n stands at place n − 1 of the flat array, so a step is told by its items."""
    total = sum(lengths)
    return Interactions(
        items=np.arange(1, total + 1, dtype=np.int32),
        timestamps_ms=1000 * np.arange(1, total + 1, dtype=np.int64),
        event_types=(np.arange(total) % 3 + 1).astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def steps(data: Interactions, *, epoch: int = 1, max_length: int = 4, batch_tokens: int = 12) -> list[tuple[int, int]]:
    batches = epoch_batches(data, max_length=max_length, batch_tokens=batch_tokens, seed=1, epoch=epoch)
    return [
        (int(item), int(target))
        for batch in batches
        for item, target in zip(batch.items_BL.ravel(), batch.targets_BL.ravel(), strict=True)
        if item
    ]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_every_step_of_every_user_is_in_an_epoch_once(epoch: int) -> None:
    """Users of 1, 2, 6 and 13 events (and one without any) make 0 + 1 + 5 + 12 steps, none from one user to the
    next."""
    data = interactions([1, 2, 0, 6, 13])
    expected = [(2, 3), *[(n, n + 1) for n in range(4, 9)], *[(n, n + 1) for n in range(10, 22)]]
    assert sorted(steps(data, epoch=epoch)) == expected


def test_windows_are_cut_at_other_places_in_other_epochs() -> None:
    data = interactions([40])
    cuts = {
        tuple(cut_windows(data.offsets, 10, np.random.default_rng([1, epoch])).lengths.tolist()) for epoch in range(20)
    }
    assert len(cuts) > 5
    assert all(max(lengths) <= 10 and sum(lengths) == 39 for lengths in cuts)


def test_short_sequence_is_one_window_with_its_items_and_targets() -> None:
    [batch] = epoch_batches(interactions([4]), max_length=10, batch_tokens=100, seed=1, epoch=1)
    assert batch.items_BL.tolist() == [[1, 2, 3]]
    assert batch.targets_BL.tolist() == [[2, 3, 4]]
    assert batch.timestamps_ms_BL.tolist() == [[1000, 2000, 3000]]
    assert batch.event_types_BL.tolist() == [[1, 2, 3]]
    assert batch.target_types_BL.tolist() == [[2, 3, 1]]


def test_row_shorter_than_its_batch_ends_in_zeros() -> None:
    [batch] = epoch_batches(interactions([4, 3]), max_length=10, batch_tokens=100, seed=1, epoch=1)
    assert batch.items_BL.tolist() == [[1, 2, 3], [5, 6, 0]]
    for values in (batch.targets_BL, batch.timestamps_ms_BL, batch.event_types_BL, batch.target_types_BL):
        assert values[0, 2] != 0
        assert values[1].tolist() == [*values[1, :2].tolist(), 0]


def test_padding_stays_below_five_percent() -> None:
    lengths = (2 + np.random.default_rng(0).geometric(0.05, 2000)).tolist()
    cells = filled = 0
    for batch in epoch_batches(interactions(lengths), max_length=50, batch_tokens=1024, seed=1, epoch=1):
        assert batch.items_BL.size <= 1024
        assert np.array_equal(batch.items_BL == 0, batch.targets_BL == 0)
        cells += batch.items_BL.size
        filled += int(np.count_nonzero(batch.items_BL))
    assert 1 - filled / cells < 0.05


def test_same_seed_and_epoch_give_the_same_batches_and_others_do_not() -> None:
    data = interactions([7, 9, 30, 4, 12])
    assert steps(data, epoch=3) == steps(data, epoch=3)
    assert steps(data, epoch=3) != steps(data, epoch=4)


def test_nothing_to_learn_gives_no_batch() -> None:
    assert steps(interactions([1, 0, 1])) == []


def test_events_of_one_time_stand_in_any_order() -> None:
    """Receipts 1 | 2 3 4 | 5 6 of one user, 7 8 | 9 of another."""
    data = replace(interactions([6, 3]), timestamps_ms=np.array([1, 2, 2, 2, 3, 3, 5, 5, 6]))
    orders = set()
    for epoch in range(200):
        for batch in epoch_batches(data, max_length=9, batch_tokens=100, seed=1, epoch=epoch, by_time=True):
            for items, goals in zip(batch.items_BL.tolist(), batch.targets_BL.tolist(), strict=True):
                steps = sum(item > 0 for item in items)
                assert items[1:steps] == goals[: steps - 1]
                orders.add((*items[:steps], goals[steps - 1]))
    of_first = {(1, *second, *third) for second in permutations((2, 3, 4)) for third in permutations((5, 6))}
    assert orders == of_first | {(7, 8, 9), (8, 7, 9)}


def test_where_the_order_counts_events_of_one_time_keep_it() -> None:
    data = interactions([6, 3])
    together = replace(data, timestamps_ms=np.array([1, 2, 2, 2, 3, 3, 5, 5, 6]))
    assert steps(together) == steps(data)
