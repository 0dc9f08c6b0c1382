"""Batches of equal work: windows of users' sequences, gathered by length so that hardly any padding is computed.

Which batches an epoch holds follows from the seed and the epoch's number alone, so a run that was interrupted meets the
same ones again.

Shapes: B batch, L length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.training.interactions import Interactions


@dataclass(frozen=True)
class Batch:
    """Input items and the item that follows each, with the times and event types of the former and the event types of
    the latter: int64, padded with 0 on the right.

    Items 4 7 2 9 of one user make the row `items_BL` 4 7 2, `targets_BL` 7 2 9.
    """

    items_BL: NDArray[np.int64]
    targets_BL: NDArray[np.int64]
    timestamps_ms_BL: NDArray[np.int64]
    event_types_BL: NDArray[np.int64]
    target_types_BL: NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Runs of steps from one item to the next: `starts` into the flat items and `lengths` in steps; each step of the
    data is in one window."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def cut_windows(offsets: NDArray[np.int64], max_length: int, rng: np.random.Generator) -> Windows:
    """Cut every user's sequence into windows of at most `max_length` steps; a user with fewer than two events has none.

    A sequence that needs several windows is cut at another place each time: its first window is 1…max_length steps
    long, drawn uniformly.
    """
    steps_U = np.diff(offsets) - 1
    users = np.flatnonzero(steps_U > 0)
    starts_U, steps_U = offsets[users].astype(np.int64), steps_U[users].astype(np.int64)
    first_U = np.where(steps_U > max_length, rng.integers(1, max_length + 1, len(users)), steps_U)
    count_U = 1 + -(-(steps_U - first_U) // max_length)
    number = np.arange(count_U.sum()) - np.repeat(np.cumsum(count_U) - count_U, count_U)
    first = np.repeat(first_U, count_U)
    begins = np.where(number == 0, 0, first + (number - 1) * max_length)
    ends = np.minimum(first + number * max_length, np.repeat(steps_U, count_U))
    return Windows(starts=np.repeat(starts_U, count_U) + begins, lengths=ends - begins)


def epoch_batches(
    interactions: Interactions, *, max_length: int, batch_tokens: int, seed: int, epoch: int, by_time: bool = False
) -> Iterator[Batch]:
    """All windows of one epoch, in batches of at most `batch_tokens` cells (one window where it alone is longer).

    Windows of one length meet in random order, and so do the batches.

    by_time: see `PreparedData.asks_by_time`. Events of one time then have no order but that of a file, which may well
        be sorted: they stand in another random order each epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    windows = cut_windows(interactions.offsets, max_length, rng)
    shuffled = rng.permutation(len(windows.starts))
    by_length = shuffled[np.argsort(-windows.lengths[shuffled], kind="stable")]
    slices: list[slice] = []
    begin = 0
    while begin < len(by_length):
        size = max(1, batch_tokens // int(windows.lengths[by_length[begin]]))
        slices.append(slice(begin, begin + size))
        begin += size
    order = rng.permutation(len(slices))
    rows = np.arange(len(interactions))
    events = np.lexsort((rng.random(len(rows)), interactions.time_groups.of_event)) if by_time else rows
    for number in order:
        chosen = by_length[slices[number]]
        yield _batch(interactions, events, windows.starts[chosen], windows.lengths[chosen])


def _batch(
    interactions: Interactions, events: NDArray[np.int64], starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]
) -> Batch:
    """`events` are the rows of the interactions in the order in which they are read."""
    column_L = np.arange(lengths_B.max())
    inside_BL = column_L < lengths_B[:, None]
    place_BL = np.where(inside_BL, starts_B[:, None] + column_L, 0)
    event_BL, next_BL = events[place_BL], events[np.where(inside_BL, place_BL + 1, 0)]

    def gathered(values: NDArray[Any], rows_BL: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(inside_BL, values[rows_BL], 0).astype(np.int64)

    return Batch(
        items_BL=gathered(interactions.items, event_BL),
        targets_BL=gathered(interactions.items, next_BL),
        timestamps_ms_BL=gathered(interactions.timestamps_ms, event_BL),
        event_types_BL=gathered(interactions.event_types, event_BL),
        target_types_BL=gathered(interactions.event_types, next_BL),
    )
