"""An inner hold-out: cases cut from the training part, for whatever must learn how parts that never saw them err."""

import numpy as np

from scripts.training.interactions import Cases, Interactions

CASES = 5000
SHARE = 0.03
"""Of all events may be held out: what is taken here is missing where the parts learn."""
EVENTS_LEFT = 2
"""A user keeps at least so many: one step to learn from."""


def hold_out(interactions: Interactions, *, seed: int) -> tuple[Interactions, Cases]:
    """The interactions without some users' newest events, and these as cases, each with all before it as its history.

    `CASES` or `SHARE` of all events, whichever is less. Where users are many, one event each of some drawn by seed;
    where they are few, the same number of newest events of each (rounded up, so that it may be more than either in
    all), or as many as leave `EVENTS_LEFT`.
    """
    lengths = interactions.lengths
    able = np.flatnonzero(lengths > EVENTS_LEFT)
    wanted = min(CASES, int(SHARE * len(interactions)))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(able, min(wanted, len(able)), replace=False))
    each = -(-wanted // max(len(able), 1))
    taken = np.zeros(len(lengths), dtype=np.int64)
    taken[chosen] = np.minimum(each, lengths[chosen] - EVENTS_LEFT)
    left = interactions.prefixes(np.arange(len(lengths)), lengths - taken)
    users = np.repeat(np.arange(len(lengths)), taken)
    nth = np.arange(len(users)) - np.repeat(np.cumsum(taken) - taken, taken)
    before = (lengths - taken)[users] + nth
    targets = interactions.items[interactions.offsets[users] + before]
    return left, Cases(interactions.prefixes(users, before), targets, users)
