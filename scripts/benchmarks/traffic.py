"""Requests as a shop or a stream of watchers makes them: few users do much, few items are wanted much."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.open_loop import Call

RECOMMEND = "recommend"
EVENT = "event"
CHUNK = 4096


@dataclass(frozen=True)
class Traffic:
    """Users and items drawn by Zipf's law with exponent 1: the one of rank r comes as 1 / r.

    share_of_events: that many requests post one event, each new; the others ask for `k` items.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    share_of_events: float = 0.2
    k: int = 10
    seed: int = 0

    def calls(self) -> Iterator[Call]:
        """Without end, the same for the same seed but for the events' times."""
        rng = np.random.default_rng(self.seed)
        run, number = time.time_ns(), 0
        while True:
            users = zipf(rng, len(self.user_ids), CHUNK).tolist()
            items = zipf(rng, len(self.item_ids), CHUNK).tolist()
            is_event = (rng.random(CHUNK) < self.share_of_events).tolist()
            for user, item, event in zip(users, items, is_event, strict=True):
                number += 1
                if event:
                    fields = {
                        "user_id": self.user_ids[user],
                        "item_id": self.item_ids[item],
                        "event_id": f"{run:x}-{number}",
                    }
                    yield Call(EVENT, "/events", json.dumps(fields).encode())
                else:
                    fields = {"user_id": self.user_ids[user], "k": self.k}
                    yield Call(RECOMMEND, "/recommend", json.dumps(fields).encode())


def zipf(rng: np.random.Generator, num: int, size: int) -> NDArray[np.int64]:
    """0…num - 1, the frequency of each about 1 / (its number + 1)."""
    drawn: NDArray[np.int64] = np.minimum(((num + 1) ** rng.random(size)).astype(np.int64), num) - 1
    return drawn
