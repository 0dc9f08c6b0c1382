"""Trending beside popular, over a real store; the expected weights are computed by hand."""

import math
import time
from collections.abc import Iterator

import pytest

from app.state import popularity
from app.state.connection import Store
from app.state.history import Event, History, Owner
from app.state.popularity import Popularity
from tests.integration.histories import make_history

DAY_S = 86_400


@pytest.fixture
def history(redis: Store) -> History:
    return make_history(redis)


def events(item_id: str, num_events: int, first_s: float, every_s: float, weight: float = 1.0) -> Iterator[Event]:
    """One user each, `first_s` ago and then further back."""
    for number in range(num_events):
        at_us = int((time.time() - first_s - number * every_s) * 1_000_000)
        yield Event(Owner("user", f"u{number}"), item_id, "click", at_us, weight=weight)


async def test_trending_is_what_happens_more_often_than_it_used_to(redis: Store, history: History) -> None:
    await history.append(
        [
            *events("steady", 600, 0, DAY_S / 10),  # ten a day for two months
            *events("burst", 30, 0, 60),  # thirty within the last half hour
            *events("weighty", 10, 0, 60, weight=2.0),
            *events("fading", 300, 5 * DAY_S, DAY_S / 100),  # a hundred a day for three days, until five days ago
        ]
    )
    popularity = Popularity(redis, namespace="default", shards=16, half_life_days=7, trending_half_life_hours=24)
    trending = await popularity.trending()
    assert [item.item_id for item in trending] == ["burst", "weighty"]
    # Half an hour decays by 1 %. Expected of it in the long run: a seventh of its weight, as the half-lives stand.
    for item, weight in zip(trending, (30, 20), strict=True):
        assert item.weight == pytest.approx((weight - weight / 7) / math.sqrt(weight / 7 + 1), rel=0.02)
    top = await popularity.top()
    assert [item.item_id for item in top][:2] == ["fading", "steady"]
    assert top[1].weight == pytest.approx(10 * 7 / math.log(2), rel=0.02)  # ten a day, decayed


async def test_what_is_steady_but_not_among_the_best_does_not_trend(
    redis: Store, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard names its two best alone: hits of last week in the long run, some of the steady items of late."""
    monkeypatch.setattr(popularity, "MAX_ITEMS_PER_SHARD", 2)
    await history.append([event for n in range(20) for event in events(f"steady{n}", 90, n * 60, DAY_S / 3)])
    await history.append([event for n in range(3) for event in events(f"hit{n}", 400, 8 * DAY_S, DAY_S / 100)])
    await history.append([*events("burst", 40, 0, 60)])
    found = await Popularity(redis, namespace="default", shards=16, half_life_days=7).trending()
    assert [item.item_id for item in found] == ["burst"]
    assert found[0].weight == pytest.approx((40 - 40 / 7) / math.sqrt(40 / 7 + 1), rel=0.02)


async def test_without_events_nothing_is_popular_or_trending(redis: Store) -> None:
    popularity = Popularity(redis, namespace="default", shards=16, half_life_days=7)
    assert await popularity.top() == []
    assert await popularity.trending() == []
