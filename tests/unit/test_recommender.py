"""Recommender over the distance model and a dictionary of histories: every expected list is computed by eye."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.artifacts.manifest import DEFAULT_EVENT_TYPES
from app.artifacts.registry import LiveModel, load_model
from app.errors import StoreUnavailable
from app.ranking.batching import Batcher
from app.recommender.popular import PRIOR_EVENTS
from app.recommender.recommender import Recommender
from app.recommender.requests import Pin, Reason, Recommendation, RecommendationRequest
from app.recommender.sequences import encode, gone_items
from app.state.event_log import ServedRecord
from app.state.history import HistoryEvent, Owner
from app.state.items.masks import MaskCache
from app.state.items.view import CatalogueView
from tests.distance_model import write_distance_artifact

USER = Owner("user", "u1")


def events(*item_ids: str, event_type: str = "view") -> list[HistoryEvent]:
    return [HistoryEvent(item_id, event_type, (number + 1) * 1_000_000) for number, item_id in enumerate(item_ids)]


class Histories(dict[Owner, list[HistoryEvent]]):
    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        return self.get(owner, [])


class NoStore:
    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        raise StoreUnavailable("refused")

    async def top(self) -> Sequence[tuple[str, float]]:
        raise StoreUnavailable("refused")

    async def trending(self) -> Sequence[tuple[str, float]]:
        raise StoreUnavailable("refused")


class Models:
    def __init__(self, live: LiveModel | None) -> None:
        self.live = live
        self.event_types = live.manifest.event_types if live is not None else DEFAULT_EVENT_TYPES


class Items:
    """The catalogue of the model with nothing changed live."""

    def view(self, model: LiveModel | None) -> CatalogueView:
        return CatalogueView.of_model(model, MaskCache())


class Counters:
    async def top(self) -> Sequence[tuple[str, float]]:
        return [("new", 5.0), ("i1", 3.0), ("i2", 1.0)]

    async def trending(self) -> Sequence[tuple[str, float]]:
        return [("i4", 2.5), ("new", 2.0)]


class Served(list[ServedRecord]):
    def record(self, record: ServedRecord) -> None:
        self.append(record)


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    """Nine items i1…i9, nearest to the newest first, at most five events read, seen items excluded."""
    return load_model(write_distance_artifact(tmp_path), history_cap=200)


def ids(recommendation: Recommendation) -> list[str]:
    return [item.item_id for item in recommendation.items]


async def test_newest_event_decides_and_seen_items_stay_away(model: LiveModel) -> None:
    recommender = Recommender(
        Histories({USER: events("i1", "i4")}), Models(model), Items(), Counters(), Served(), Batcher()
    )
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=4))
    assert ids(answer) == ["i3", "i5", "i2", "i6"]
    assert [item.score for item in answer.items] == [-1.0, -1.0, -2.0, -2.0]
    assert [item.rank for item in answer.items] == [1, 2, 3, 4]
    assert (answer.strategy, answer.degraded, answer.reasons) == ("model", False, ())
    assert (answer.model_version, answer.history_length) == ("distance-1", 2)


@pytest.mark.parametrize(("exclude_seen", "first"), [(None, "i3"), (True, "i3"), (False, "i4")])
async def test_request_overrides_whether_seen_items_come_back(
    model: LiveModel, exclude_seen: bool | None, first: str
) -> None:
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=1, exclude_seen=exclude_seen))
    assert ids(answer) == [first]


async def test_discount_of_popularity_acts_on_what_the_model_ranks(model: LiveModel) -> None:
    """Item i has 10·i events: after i4 it scores −|i − 4| − ln(1 + 10·i), so i1 comes before i6 (−5.40 and −6.11)."""
    model = replace(model, manifest=model.manifest.model_copy(update={"popularity_discount": 1.0}))
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=4, pins=(Pin("i9", 4),)))
    assert ids(answer) == ["i3", "i5", "i2", "i9"]
    expected = [-1 - math.log(31), -1 - math.log(51), -2 - math.log(21), -5 - math.log(91)]
    assert [item.score for item in answer.items] == pytest.approx(expected, rel=1e-5)
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=3, candidates=["i5", "i6", "i1"]))
    assert ids(answer) == ["i5", "i1", "i6"]
    nobody = await recommender.recommend(RecommendationRequest(Owner("user", "unknown"), None, k=9))
    assert [item_id for item_id in ids(nobody) if item_id in ("i7", "i8", "i9")] == ["i9", "i8", "i7"]


async def test_excluded_items_never_come_back(model: LiveModel) -> None:
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(
        RecommendationRequest(USER, None, k=2, exclude_items=frozenset({"i3", "i5", "unknown"}))
    )
    assert ids(answer) == ["i2", "i6"]


async def test_items_that_the_model_does_not_know_are_passed_over(model: LiveModel) -> None:
    recommender = Recommender(
        Histories({USER: events("i4", "new")}), Models(model), Items(), Counters(), Served(), Batcher()
    )
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=1))
    assert (ids(answer), answer.strategy, answer.history_length) == (["i3"], "model", 2)


@pytest.mark.parametrize(
    ("history", "reason"), [(events(), Reason.UNKNOWN_USER), (events("new", "newer"), Reason.NO_KNOWN_ITEM)]
)
async def test_without_a_known_item_what_is_popular_answers(
    model: LiveModel, history: list[HistoryEvent], reason: Reason
) -> None:
    recommender = Recommender(Histories({USER: history}), Models(model), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=2))
    assert (ids(answer), answer.strategy, answer.reasons) == (["i9", "i8"], "popular", (reason,))
    assert answer.items[0].score == pytest.approx(90 / 450 * PRIOR_EVENTS)


async def test_without_a_model_the_stores_counters_answer_and_the_list_may_be_short() -> None:
    recommender = Recommender(Histories({USER: events("i1")}), Models(None), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=3, exclude_seen=True))
    assert (ids(answer), answer.model_version) == (["new", "i2"], None)
    assert answer.reasons == (Reason.NO_MODEL, Reason.SHORT_CATALOGUE)


async def test_without_the_store_the_answer_comes_all_the_same(model: LiveModel) -> None:
    recommender = Recommender(NoStore(), Models(model), Items(), NoStore(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=2))
    assert (ids(answer), answer.degraded, answer.reasons) == (["i9", "i8"], True, (Reason.STORE_UNAVAILABLE,))


async def test_without_store_and_model_an_empty_answer_names_both() -> None:
    recommender = Recommender(NoStore(), Models(None), Items(), NoStore(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=2))
    assert answer.reasons == (Reason.STORE_UNAVAILABLE, Reason.NO_MODEL, Reason.SHORT_CATALOGUE)
    assert ids(answer) == []


async def test_given_history_needs_no_store(model: LiveModel) -> None:
    recommender = Recommender(NoStore(), Models(model), Items(), NoStore(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(None, events("i1", "i4"), k=2))
    assert (ids(answer), answer.degraded) == (["i3", "i5"], False)


async def test_events_that_are_only_counted_are_not_read(model: LiveModel) -> None:
    history = events("i4") + events("i9", event_type="impression")
    for recommender, request in (
        (
            Recommender(NoStore(), Models(model), Items(), NoStore(), Served(), Batcher()),
            RecommendationRequest(None, history, k=1),
        ),
        (
            Recommender(Histories({USER: history}), Models(model), Items(), Counters(), Served(), Batcher()),
            RecommendationRequest(USER, None, k=1),
        ),
    ):
        assert ids(await recommender.recommend(request)) == ["i3"]


async def test_short_catalogue_is_named_when_fewer_than_k_are_eligible(model: LiveModel) -> None:
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), Served(), Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=9))
    assert (len(answer.items), answer.reasons) == (8, (Reason.SHORT_CATALOGUE,))


async def test_attributes_come_only_when_asked_for(model: LiveModel) -> None:
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), Served(), Batcher())
    with_them = await recommender.recommend(RecommendationRequest(USER, None, k=1, include_attributes=True))
    without = await recommender.recommend(RecommendationRequest(USER, None, k=1))
    assert with_them.items[0].attributes == {"title": "Film i3", "year": 1992, "genres": ["Drama"]}
    assert without.items[0].attributes is None


async def test_every_answer_is_logged_as_it_was_served(model: LiveModel) -> None:
    served = Served()
    recommender = Recommender(Histories({USER: events("i4")}), Models(model), Items(), Counters(), served, Batcher())
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=2))
    (record,) = served
    assert (record.recommendation_id, record.owner) == (answer.recommendation_id, USER)
    assert (record.item_ids, record.scores) == (("i3", "i5"), (-1.0, -1.0))
    assert (record.model_version, record.strategy) == ("distance-1", "model")


def test_model_reads_the_newest_known_events_oldest_first(model: LiveModel) -> None:
    history = events("i1", "i2", "new", "i3", "i4", "i5", "i6")
    history[-1] = HistoryEvent("i6", "cart", 7_000_999)
    sequence = encode(history, model, Items().view(model))
    assert list(sequence.items) == [2, 3, 4, 5, 6]
    assert list(sequence.timestamps_ms) == [2000, 4000, 5000, 6000, 7000]
    assert list(sequence.event_types) == [1, 1, 1, 1, 2]


async def test_swapped_model_is_used_whole_by_the_next_request(tmp_path: Path, model: LiveModel) -> None:
    reversed_ids = [f"i{index}" for index in range(9, 0, -1)]
    other = load_model(write_distance_artifact(tmp_path, "distance-2", item_ids=reversed_ids), history_cap=200)
    models = Models(model)
    recommender = Recommender(Histories({USER: events("i9")}), models, Items(), Counters(), Served(), Batcher())
    assert ids(await recommender.recommend(RecommendationRequest(USER, None, k=2))) == ["i8", "i7"]
    models.live = other
    answer = await recommender.recommend(RecommendationRequest(USER, None, k=2))
    assert (ids(answer), answer.model_version) == (["i8", "i7"], "distance-2")


DAY_US = 86_400_000_000


def test_dismissed_item_hides_for_its_time_and_until_the_next_event_on_it(model: LiveModel) -> None:
    history = [
        HistoryEvent("i1", "dismiss", 1 * DAY_US),  # longer than 30 days ago
        HistoryEvent("i2", "dismiss", 20 * DAY_US),
        HistoryEvent("i3", "dismiss", 20 * DAY_US),
        HistoryEvent("i3", "view", 21 * DAY_US),
        HistoryEvent("i4", "view", 22 * DAY_US),
        HistoryEvent("i4", "dismiss", 23 * DAY_US),
        HistoryEvent("i5", "never_heard_of", 24 * DAY_US),
    ]
    types = model.manifest.event_types
    assert gone_items(history, types, exclude_seen=False, now_us=32 * DAY_US) == {"i2", "i4"}
    assert gone_items(history, types, exclude_seen=True, now_us=32 * DAY_US) == {"i2", "i3", "i4", "i5"}


async def test_dismissed_items_do_not_come_back_though_seen_ones_may(model: LiveModel) -> None:
    negative = [HistoryEvent(item_id, "dismiss", time.time_ns() // 1000) for item_id in ("i3", "i5")]
    recommender = Recommender(
        Histories({USER: [*events("i4"), *negative]}), Models(model), Items(), Counters(), Served(), Batcher()
    )
    request = RecommendationRequest(USER, None, k=3, exclude_seen=False)
    assert ids(await recommender.recommend(request)) == ["i4", "i2", "i6"]  # by distance from i4, not from i5
    stateless = RecommendationRequest(None, [*events("i4"), HistoryEvent("i3", "dismiss", 0)], k=1, exclude_seen=False)
    assert ids(await recommender.recommend(stateless)) == ["i4"]
    without_model = Recommender(Histories({USER: [HistoryEvent("new", "dismiss", time.time_ns() // 1000)]}),
                                Models(None), Items(), Counters(), Served(), Batcher())  # fmt: skip
    assert ids(await without_model.recommend(request)) == ["i1", "i2"]
