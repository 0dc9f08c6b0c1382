"""An inner hold-out: cases cut from the training part, for whatever must learn how parts that never saw them err."""

import numpy as np

from scripts.training.interactions import Cases, Interactions

CASES = 5000
SHARE = 0.03
"""Of all events may be held out: what is taken here is missing where the parts learn."""
EVENTS_LEFT = 2
"""A user keeps at least so many: one step to learn from."""


def hold_out(interactions: Interactions, *, seed: int, by_time: bool = False) -> tuple[Interactions, Cases]:
    """The interactions without some users' newest events, and these as cases, each with all before it as its history.

    `CASES` or `SHARE` of all events, whichever is less. Where users are many, one event each of some drawn by seed;
    where they are few, the same number of newest events of each (rounded up, so that it may be more than either in
    all), or as many as leave `EVENTS_LEFT`.

    by_time: see `PreparedData.asks_by_time`; events of one time are then taken together and are not each other's
        history, and users who would keep too few with that keep all.
    """
    lengths = interactions.lengths
    able = np.flatnonzero(lengths > EVENTS_LEFT)
    wanted = min(CASES, int(SHARE * len(interactions)))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(able, min(wanted, len(able)), replace=False))
    each = -(-wanted // max(len(able), 1))
    taken = np.zeros(len(lengths), dtype=np.int64)
    taken[chosen] = np.minimum(each, lengths[chosen] - EVENTS_LEFT)
    if by_time:
        first = interactions.offsets[chosen] + lengths[chosen] - taken[chosen]
        kept = interactions.num_earlier[np.minimum(first, len(interactions) - 1)]
        taken[chosen] = np.where(kept >= EVENTS_LEFT, lengths[chosen] - kept, 0)
    left = interactions.prefixes(np.arange(len(lengths)), lengths - taken)
    users = np.repeat(np.arange(len(lengths)), taken)
    nth = np.arange(len(users)) - np.repeat(np.cumsum(taken) - taken, taken)
    rows = interactions.offsets[users] + (lengths - taken)[users] + nth
    most = max(CASES, each * len(chosen))
    if len(rows) > most:  # with all of their times: more than are needed to learn from
        some = np.sort(rng.choice(len(rows), most, replace=False))
        rows, users = rows[some], users[some]
    before = interactions.num_earlier[rows] if by_time else rows - interactions.offsets[users]
    return left, Cases(interactions.prefixes(users, before), interactions.items[rows], users)
