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

    Items 4 7 2 9 of one user make the row `items_BL` 4 7 2, `targets_BL` 7 2 9. By time, where 7 and 2 came at one, it
    is 4 7 2 or 4 2 7, and 4 leads to either of the two, both of them to 9.
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

    by_time: see `PreparedData.asks_by_time`; events of one time are then a set, see `_steps_by_time`.
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
    steps = _steps_by_time(interactions, rng) if by_time else _steps(interactions)
    for number in order:
        chosen = by_length[slices[number]]
        yield _batch(interactions, steps, windows.starts[chosen], windows.lengths[chosen])


@dataclass(frozen=True)
class _Steps:
    """Row by row of the interactions: which event stands there in this epoch, and which one it leads to, −1 for none.
    A user's last row leads into the next user's, where no window reaches."""

    events: NDArray[np.int64]
    targets: NDArray[np.int64]


def _steps(interactions: Interactions) -> _Steps:
    """Every event leads to the next one."""
    rows = np.arange(len(interactions))
    return _Steps(rows, rows + 1)


def _steps_by_time(interactions: Interactions, rng: np.random.Generator) -> _Steps:
    """Events of one time have no order but that of a file, which may well be sorted: they stand in random order, and
    each leads to a random event of the user's next time."""
    rows = np.arange(len(interactions))
    groups = interactions.time_groups
    events = np.lexsort((rng.random(len(rows)), groups.of_event))
    sizes = np.diff(groups.starts, append=len(rows))
    following = np.minimum(groups.of_event + 1, len(sizes) - 1)
    drawn = groups.starts[following] + (rng.random(len(rows)) * sizes[following]).astype(np.int64)
    owners = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    is_own = (following > groups.of_event) & (owners[drawn] == owners)
    return _Steps(events, np.where(is_own, drawn, -1))


def _batch(
    interactions: Interactions, steps: _Steps, starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]
) -> Batch:
    column_L = np.arange(lengths_B.max())
    inside_BL = column_L < lengths_B[:, None]
    place_BL = np.minimum(starts_B[:, None] + column_L, len(interactions) - 1)
    event_BL, next_BL = steps.events[place_BL], steps.targets[place_BL]
    leads_BL = inside_BL & (next_BL >= 0)

    def gathered(values: NDArray[Any], places: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.where(known, values[np.where(known, places, 0)], 0).astype(np.int64)

    return Batch(
        items_BL=gathered(interactions.items, event_BL, inside_BL),
        targets_BL=gathered(interactions.items, next_BL, leads_BL),
        timestamps_ms_BL=gathered(interactions.timestamps_ms, event_BL, inside_BL),
        event_types_BL=gathered(interactions.event_types, event_BL, inside_BL),
        target_types_BL=gathered(interactions.event_types, next_BL, leads_BL),
    )
