"""What many users choose: the store's counters over the artifact's counts. The expected weights are sums done by hand.

The model's items are i1…i9 with 10…90 events: 450, which together weigh as much as 100 events of this moment.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.artifacts.registry import LiveModel, load_model
from app.ranking.batching import Batcher
from app.recommender.popular import Counters, KeptWeights, Weights, weigh
from app.recommender.recommender import Recommender
from app.recommender.requests import Boost, Pin, Popular, Reason, Recommendation, RecommendationRequest
from app.state.event_log import ServedRecord
from app.state.filters import condition
from app.state.history import HistoryEvent, Owner
from app.state.items.masks import MaskCache
from app.state.items.view import CatalogueView
from tests.distance_model import EVENT_TYPES, write_distance_artifact

USER = Owner("user", "u")
POPULAR = [("i2", 30.0), ("unheard_of", 20.0), ("i9", 10.0)]
TRENDING = [("i4", 5.0), ("unheard_of", 4.0), ("i2", 2.0)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    return load_model(write_distance_artifact(tmp_path_factory.mktemp("popular")), history_cap=200)


class World:
    """A recommender with one user's history, the counters above, and a model or none."""

    def __init__(self, live: LiveModel | None, *history: str) -> None:
        self.live = live
        self.event_types = EVENT_TYPES
        self.history = [HistoryEvent(item_id, "view", 1) for item_id in history]
        self._view = CatalogueView.of_model(live, MaskCache())
        self.recommender = Recommender(self, self, self, self, self, Batcher())

    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        return self.history

    async def top(self) -> Sequence[tuple[str, float]]:
        return POPULAR

    async def trending(self) -> Sequence[tuple[str, float]]:
        return TRENDING

    def view(self, model: LiveModel | None) -> CatalogueView:
        return self._view

    def record(self, record: ServedRecord) -> None: ...

    def recommend(self, strategy: Popular | None = None, k: int = 3, **what: object) -> Recommendation:
        request = RecommendationRequest(USER, None, k, strategy=strategy, **what)  # type: ignore[arg-type]  # each test says what it asks
        alone = asyncio.run(self.recommender.recommend(request))
        (together,) = asyncio.run(self.recommender.recommend_all([request]))
        assert isinstance(together, Recommendation)
        assert (together.items, together.strategy, together.reasons) == (alone.items, alone.strategy, alone.reasons)
        return alone


def ranked(answer: Recommendation) -> list[tuple[str, float]]:
    return [(item.item_id, pytest.approx(item.score, rel=1e-6)) for item in answer.items]


def test_unknown_user_gets_the_newest_counts_over_the_artifacts(model: LiveModel) -> None:
    answer = World(model).recommend()
    assert (answer.strategy, answer.reasons) == ("popular", (Reason.UNKNOWN_USER,))
    assert ranked(answer) == [("i2", 30 + 2000 / 450), ("i9", 10 + 9000 / 450), ("i8", 8000 / 450)]


def test_first_event_brings_the_model(model: LiveModel) -> None:
    answer = World(model, "i5").recommend(exclude_seen=True)
    assert (answer.strategy, answer.reasons) == ("model", ())
    assert [item.item_id for item in answer.items] == ["i4", "i6", "i3"]


@pytest.mark.parametrize("strategy", ["popular", "trending"])
def test_whoever_asks_for_what_many_choose_gets_it_without_excuses(model: LiveModel, strategy: Popular) -> None:
    for world in (World(model, "i5"), World(model), World(None)):
        answer = world.recommend(strategy, k=2)
        assert (answer.strategy, answer.reasons) == (strategy, ())


def test_trending_items_come_first_and_the_popular_ones_fill_the_list(model: LiveModel) -> None:
    total = 100 + 30 + 20 + 10
    assert ranked(World(model, "i5").recommend("trending", k=4)) == [
        ("i4", 5.0),
        ("i2", 2.0),
        ("i9", (10 + 9000 / 450) / total),
        ("i8", 8000 / 450 / total),
    ]


def test_without_a_model_the_counters_know_every_item(model: LiveModel) -> None:
    assert [item.item_id for item in World(None).recommend("trending", k=3).items] == ["i4", "unheard_of", "i2"]
    assert ranked(World(None).recommend("popular", k=3)) == POPULAR


def test_what_is_asked_of_a_ranking_holds_for_what_many_choose(model: LiveModel) -> None:
    world = World(model, "i4", "i7")
    seen = world.recommend("trending", k=2, exclude_seen=True)
    assert [item.item_id for item in seen.items] == ["i2", "i9"]
    odd = condition("item_id", "in", ["i1", "i3", "i5", "i7", "i9"])
    filtered = world.recommend("trending", k=3, filter=odd, exclude_items=frozenset(["i7"]), exclude_seen=False)
    assert [item.item_id for item in filtered.items] == ["i9", "i5", "i3"]
    boosts = (Boost(condition("item_id", "eq", "i2"), 3.0),)
    assert ranked(world.recommend("trending", k=2, boosts=boosts, exclude_seen=False)) == [("i2", 6.0), ("i4", 5.0)]
    pinned = world.recommend("popular", k=2, pins=(Pin("i2", 2), Pin("i1", 1)))
    assert ranked(pinned) == [("i1", 1000 / 450), ("i2", 30 + 2000 / 450)]


counted = st.lists(st.tuples(st.integers(1, 12), st.floats(0, 100)), max_size=12, unique_by=lambda pair: pair[0])


@given(popular=counted, trending=counted, size=st.integers(1, 12))
def test_best_of_sparse_weights_are_the_best_of_all(
    model: LiveModel, popular: list[tuple[int, float]], trending: list[tuple[int, float]], size: int
) -> None:
    """The list made from the counted items and as many others, beside one over the whole catalogue."""
    counters = Counters(
        [(f"i{number}", weight) for number, weight in popular],
        [(f"i{number}", 1.0 + weight) for number, weight in trending],
    )
    strategies: tuple[Popular, ...] = ("popular", "trending")
    for strategy in strategies:
        weights = Weights(strategy, counters, model, CatalogueView.of_model(model, MaskCache()))
        all_V = weights.of_all(9)
        indices, values = weights.best(size)
        order = np.lexsort((np.arange(1, 10), -all_V[1:])) + 1
        assert indices[:size].tolist() == order[:size].tolist()
        assert values[:size].tolist() == all_V[order[:size]].tolist()
        assert [weights.of(index) for index in range(1, 10)] == pytest.approx(all_V[1:].tolist())


def test_share_of_popularity_stays_below_what_trends() -> None:
    weights, factor = weigh("trending", Counters([("a", 1e9), ("b", 1.0)], [("b", 1.01)]), lambda _: 50.0)
    assert weights["a"] < weights["b"] == 1.01
    assert 50.0 * factor < 1


def test_weights_are_made_anew_when_counters_or_catalogue_change(model: LiveModel) -> None:
    kept, view = KeptWeights(), CatalogueView.of_model(model, MaskCache())
    lists = [("i1", 5.0)], [("i2", 2.0)]
    first = kept.of("popular", Counters(*lists), model, view)
    assert kept.of("popular", Counters(*lists), model, view) is first
    assert kept.of("trending", Counters(*lists), model, view) is not first
    assert kept.of("popular", Counters([("i1", 6.0)], lists[1]), model, view).of(1) > first.of(1)
    assert kept.of("popular", Counters(*lists), model, CatalogueView.of_model(model, MaskCache())) is not first
