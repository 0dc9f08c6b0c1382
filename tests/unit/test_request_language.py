"""What a request may ask of a ranking, over the distance model: the expected lists come from plain loops or by eye."""

import asyncio
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.artifacts.manifest import DEFAULT_EVENT_TYPES, Calibration
from app.artifacts.registry import LiveModel, load_model
from app.errors import InvalidRequest, StoreUnavailable
from app.ranking.batching import Batcher
from app.ranking.ranker import ItemSequence, Ranker, Ranking
from app.recommender import recommender
from app.recommender.paging import NextPage, Paging
from app.recommender.popular import PRIOR_EVENTS
from app.recommender.recommender import Recommender
from app.recommender.requests import Boost, Pin, Reason, Recommendation, RecommendationRequest
from app.state.event_log import ServedRecord
from app.state.filters import All, AnyOf, Filter, Not, condition
from app.state.history import HistoryEvent, Owner
from app.state.items.masks import MaskCache
from app.state.items.records import ItemRecord
from app.state.items.view import CatalogueView
from app.state.kept_lists import KeptList, Place
from tests.distance_model import write_distance_artifact

NUM_ITEMS = 20
IDS = [f"i{index}" for index in range(1, NUM_ITEMS + 1)]
FIRST_YEAR = 1990  # of i1; every item is a year younger than the one before
MASKS = MaskCache()


@cache
def model() -> LiveModel:
    """Twenty items, nearest to the newest first, popularity rising with the number."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(write_distance_artifact(Path(folder), num_items=NUM_ITEMS), history_cap=200)


def asked(*history: str, **what: object) -> RecommendationRequest:
    events = [HistoryEvent(item_id, "view", number) for number, item_id in enumerate(history)]
    return RecommendationRequest(None, events, **what)  # type: ignore[arg-type]  # each test says what it asks


class World:
    """A recommender whose parts are values: no histories, one model, the catalogue with these items unavailable."""

    def __init__(
        self, live: LiveModel | None = None, unavailable: Sequence[str] = (), **added: dict[str, object]
    ) -> None:
        self.live = live
        self.event_types = DEFAULT_EVENT_TYPES
        records = {item_id: ItemRecord(available=False).encode() for item_id in unavailable}
        records |= {item_id: ItemRecord(attributes=attributes).encode() for item_id, attributes in added.items()}
        self._view = CatalogueView.of_model(live, MASKS).with_records(records)
        self.recommender = Recommender(self, self, self, self, self, Batcher())

    def view(self, model: LiveModel | None) -> CatalogueView:
        return self._view

    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        return ()

    async def top(self) -> Sequence[tuple[str, float]]:
        """None while the model is live: the artifact's counts rank alone."""
        return [("i3", 8.0), ("new", 4.0), ("i1", 2.0), ("i2", 1.0)] if self.live is None else []

    async def trending(self) -> Sequence[tuple[str, float]]:
        raise AssertionError("nobody asks for it")

    def record(self, record: ServedRecord) -> None: ...

    def recommend(self, *history: str, **what: object) -> Recommendation:
        return asyncio.run(self.recommender.recommend(asked(*history, **what)))


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


Case = tuple[Filter, Callable[[int], bool]]
"""A filter, and the same said of an item's number."""


def _negated(case: Case) -> Case:
    return Not(case[0]), lambda number: not case[1](number)


def _all_of(cases: list[Case]) -> Case:
    return All(tuple(part for part, _ in cases)), lambda number: all(holds(number) for _, holds in cases)


def _any_of(cases: list[Case]) -> Case:
    return AnyOf(tuple(part for part, _ in cases)), lambda number: any(holds(number) for _, holds in cases)


NUMBERS = st.integers(1, NUM_ITEMS)
CONDITIONS = st.one_of(
    NUMBERS.map(lambda n: (condition("year", "lt", FIRST_YEAR - 1 + n), lambda number: number < n)),
    NUMBERS.map(lambda n: (condition("year", "gte", FIRST_YEAR - 1 + n), lambda number: number >= n)),
    st.sets(NUMBERS, min_size=1).map(
        lambda some: (condition("item_id", "in", [f"i{n}" for n in sorted(some)]), lambda number: number in some)
    ),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        inner.map(_negated), st.lists(inner, max_size=3).map(_all_of), st.lists(inner, max_size=3).map(_any_of)
    ),
    max_leaves=4,
)
SOME_IDS = st.sets(st.sampled_from([*IDS, "unknown"]), max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    history=st.lists(st.sampled_from(IDS), max_size=4),
    case=st.none() | FILTERS,
    candidates=st.none() | st.sets(st.sampled_from([*IDS, "unknown"]), min_size=1),
    excluded=SOME_IDS,
    exclude_seen=st.booleans(),
    unavailable=st.sets(st.sampled_from(IDS), max_size=5),
    num_added=st.integers(0, 2),
    k=st.integers(1, NUM_ITEMS + 3),
)
def test_k_items_come_back_whenever_k_are_eligible_and_no_other_ever_does(
    history: list[str],
    case: Case | None,
    candidates: set[str] | None,
    excluded: set[str],
    exclude_seen: bool,
    unavailable: set[str],
    num_added: int,
    k: int,
) -> None:
    """An item that was added live is ranked by popularity, behind all others; this model has no vector of it."""
    added = range(NUM_ITEMS + 1, NUM_ITEMS + 1 + num_added)
    eligible = [
        number
        for number in [*range(1, NUM_ITEMS + 1), *(added if not history else ())]
        if (case is None or case[1](number))
        and (candidates is None or f"i{number}" in candidates)
        and f"i{number}" not in excluded | unavailable | (set(history) if exclude_seen else set())
    ]
    if history:
        newest = int(history[-1][1:])
        eligible.sort(key=lambda number: (abs(number - newest), number))
    else:
        eligible.sort(key=lambda number: (number > NUM_ITEMS, -number if number <= NUM_ITEMS else number))
    attributes = {f"i{number}": {"year": FIRST_YEAR - 1 + number} for number in added}
    answer = World(model(), sorted(unavailable), **attributes).recommend(
        *history,
        k=k,
        filter=case[0] if case is not None else None,
        candidates=sorted(candidates) if candidates is not None else None,
        exclude_items=frozenset(excluded),
        exclude_seen=exclude_seen,
    )
    assert ids(answer) == [f"i{number}" for number in eligible[:k]]
    assert (Reason.SHORT_CATALOGUE in answer.reasons) == (len(eligible) < k)
    assert (Reason.UNKNOWN_CANDIDATES in answer.reasons) == (candidates is not None and "unknown" in candidates)


def test_factor_multiplies_odds_before_the_best_are_taken() -> None:
    """Scores are −distance: a factor of e³ is worth three steps, e⁻³ as many the other way."""
    world = World(model())
    far = Boost(condition("item_id", "eq", "i14"), math.exp(3.5))
    near = Boost(condition("item_id", "in", ["i11", "i9"]), math.exp(-1.5))
    plain = world.recommend("i10", k=4, exclude_seen=True)
    boosted = world.recommend("i10", k=4, exclude_seen=True, boosts=(far, near))
    assert ids(plain) == ["i9", "i11", "i8", "i12"]
    assert ids(boosted) == ["i14", "i8", "i12", "i9"]  # −0.5, −2, −2, −2.5
    assert [item.score for item in boosted.items] == pytest.approx([-0.5, -2, -2, -2.5])


def test_factor_multiplies_counts_where_popularity_ranks() -> None:
    boosts = (Boost(condition("item_id", "eq", "i15"), 1.5), Boost(condition("item_id", "eq", "i20"), 0.5))
    answer = World(model()).recommend(k=3, boosts=boosts)
    all_counts = 10 * sum(range(1, NUM_ITEMS + 1)) / PRIOR_EVENTS
    assert [(item.item_id, item.score) for item in answer.items] == [
        ("i15", pytest.approx(225 / all_counts)),
        ("i19", pytest.approx(190 / all_counts)),
        ("i18", pytest.approx(180 / all_counts)),
    ]


def test_boost_brings_nothing_back() -> None:
    boosts = (Boost(condition("item_id", "eq", "i10"), 1000.0),)
    answer = World(model(), ["i11"]).recommend("i10", k=2, exclude_seen=True, boosts=boosts)
    assert ids(answer) == ["i9", "i8"]


def test_pin_stands_at_its_position_once_and_passes_over_what_was_seen() -> None:
    pins = (Pin("i10", 2), Pin("i9", 4))
    answer = World(model()).recommend("i10", k=5, exclude_seen=True, pins=pins)
    assert ids(answer) == ["i11", "i10", "i8", "i9", "i12"]
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    assert [item.score for item in answer.items] == [-1.0, 0.0, -2.0, -1.0, -2.0]
    assert answer.reasons == ()


@pytest.mark.parametrize(
    "asked",
    [
        {"exclude_items": frozenset({"i2"})},
        {"filter": Not(condition("item_id", "eq", "i2"))},
        {"candidates": ["i9", "i11"]},
    ],
)
def test_pin_passes_over_nothing_else(asked: dict[str, object]) -> None:
    answer = World(model()).recommend("i10", k=2, exclude_seen=True, pins=(Pin("i2", 1),), **asked)
    assert (ids(answer), answer.reasons) == (["i9", "i11"], (Reason.PIN_LEFT_OUT,))


def test_pin_of_an_unavailable_or_unknown_item_is_left_out() -> None:
    answer = World(model(), ["i2"]).recommend("i10", k=1, pins=(Pin("i2", 1), Pin("nothing", 2)), exclude_seen=True)
    assert (ids(answer), answer.reasons) == (["i9"], (Reason.PIN_LEFT_OUT,))


def test_pin_beyond_the_end_of_a_short_list_comes_last() -> None:
    answer = World(model()).recommend("i10", k=9, candidates=["i9", "i2"], pins=(Pin("i2", 7),))
    assert (ids(answer), answer.reasons) == (["i9", "i2"], (Reason.SHORT_CATALOGUE,))


def test_new_item_may_be_pinned_before_a_model_knows_it() -> None:
    answer = World(model(), new={"year": 2030}).recommend("i10", k=2, exclude_seen=True, pins=(Pin("new", 1),))
    assert ids(answer) == ["new", "i9"]
    assert math.isnan(answer.items[0].score)


def test_diversity_spreads_the_list_over_attributes() -> None:
    """i9 and i11 are of one maker, as are i8 and i12; all are near i10."""
    makers = {"i9": "a", "i11": "a", "i8": "b", "i12": "b", "i7": "c"}
    world = World(model(), **{item_id: {"maker": maker} for item_id, maker in makers.items()})
    asked = {"candidates": list(makers), "k": 3}
    assert ids(world.recommend("i10", **asked)) == ["i9", "i11", "i8"]
    # Scores −1, −1, −2, −2, −3 are relevances 1, 1, ½, ½, 0. After i9: i11 is worth ½ − ½, i8 ¼; then i11 0, i12 −¼.
    assert ids(world.recommend("i10", diversity=0.5, **asked)) == ["i9", "i8", "i11"]
    assert ids(world.recommend("i10", diversity=1.0, **asked)) == ["i9", "i8", "i7"]
    assert ids(world.recommend(diversity=1.0, **asked)) == ["i12", "i11", "i7"]  # popularity too


def test_filter_that_fits_no_item_is_the_callers_fault_and_says_where() -> None:
    boosts = (Boost(condition("year", "eq", 1990), 2.0), Boost(condition("yaer", "eq", 1990), 2.0))
    with pytest.raises(InvalidRequest) as caught:
        World(model()).recommend("i10", k=2, boosts=boosts)
    assert caught.value.faults[0].pointer == "/boosts/1/filter/field"


class CountingRanker:
    """Ranks as another does, and keeps how many sequences came together."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self.batches: list[tuple[int, bool]] = []
        self.num_items = ranker.num_items
        self.item_vectors = ranker.item_vectors
        self.score = ranker.score

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        self.batches.append((len(sequences), adjust_BV is not None))
        return self._ranker.rank(sequences, k, adjust_BV)


REQUESTS = [
    asked("i10", k=3, exclude_seen=True),
    asked("i2", "i18", k=5, exclude_seen=False, filter=condition("year", "lt", FIRST_YEAR + 12)),
    asked(k=4),  # popularity
    asked("i5", k=2, filter=condition("yaer", "lt", 2000)),
    asked("i7", k=1, pins=(Pin("i20", 1),)),
    asked("i3", k=8, diversity=0.5, candidates=("i1", "i2", "i9")),
]


@pytest.mark.parametrize(
    ("max_scores", "batches"), [(recommender.MAX_SCORES, [(2, False), (2, True)]), (45, 2 * [(1, False), (1, True)])]
)
async def test_requests_together_are_answered_as_each_alone_by_few_runs(
    monkeypatch: pytest.MonkeyPatch, max_scores: int, batches: list[tuple[int, bool]]
) -> None:
    """Of the six, one is not to be answered, one is for popularity, two restrict items and are ranked apart; 45 scores
    are two rows of 21."""
    monkeypatch.setattr(recommender, "MAX_SCORES", max_scores)
    ranker = CountingRanker(model().ranker)
    together = await World(replace(model(), ranker=ranker)).recommender.recommend_all(REQUESTS)
    assert ranker.batches == batches
    world = World(model())
    for number, (request, answer) in enumerate(zip(REQUESTS, together, strict=True)):
        if number == 3:
            assert isinstance(answer, InvalidRequest)
            continue
        assert isinstance(answer, Recommendation)
        alone = await world.recommender.recommend(request)
        assert replace(answer, recommendation_id="") == replace(alone, recommendation_id="")


async def test_requests_together_without_a_model_are_answered_as_each_alone(without_model: World) -> None:
    together = await without_model.recommender.recommend_all(REQUESTS[:4])
    assert isinstance(together[3], InvalidRequest)
    assert isinstance(together[0], Recommendation)
    assert ids(together[0]) == ["i3", "new", "i2"]


def test_explanation_gives_every_event_that_the_model_read_for_every_item() -> None:
    """The model goes by the newest event alone: without i2 that is i10, and without another nothing changes."""
    history = ("i1", "no-such-item", "i10", "i2")
    answer = World(model()).recommend(*history, k=2, explain=True, pins=(Pin("i20", 2),), exclude_seen=False)
    assert ids(answer) == ["i2", "i20"]
    for item, sign in zip(answer.items, (1, -1), strict=True):  # without i2, i20 would be less far
        assert item.because is not None
        assert sorted(each.item_id for each in item.because) == ["i1", "i10", "i2"]
        amounts = {each.item_id: each.contribution for each in item.because}
        assert [each.contribution for each in item.because] == sorted(amounts.values(), reverse=True)
        assert sign * amounts["i2"] > 1
        assert (amounts["i1"], amounts["i10"]) == (0, 0)


def test_what_the_model_did_not_rank_has_no_events_behind_it() -> None:
    added = World(model(), new={}).recommend("i10", k=2, explain=True, pins=(Pin("new", 1),))
    assert [len(item.because or ()) for item in added.items] == [0, 1]
    for answer in (World(model()).recommend(k=1, explain=True), World(None).recommend("i1", k=1, explain=True)):
        assert [item.because for item in answer.items] == [()]
    assert World(model()).recommend("i10", k=1).items[0].because is None


def test_probability_is_the_models_own_whatever_the_request_changes() -> None:
    """Scores are −distance. After i10 the catalogue's twenty items weigh e⁰ + 2 Σ e⁻ᵈ (d = 1…9) + e⁻¹⁰ together."""
    calibration = Calibration(slope=0.8, intercept=0.1, expected_error=0.01)
    live = replace(model(), manifest=model().manifest.model_copy(update={"calibration": calibration}))
    boosts = (Boost(condition("item_id", "eq", "i13"), 1000.0),)
    world = World(live, new={})
    answer = world.recommend("i10", k=3, include_probability=True, boosts=boosts, pins=(Pin("new", 3),))
    assert ids(answer) == ["i13", "i9", "new"]
    total = 1 + 2 * sum(math.exp(-distance) for distance in range(1, 10)) + math.exp(-10)
    for item, distance in zip(answer.items, (3, 1), strict=False):
        log_share = -distance - math.log(total)
        assert item.probability == pytest.approx(1 / (1 + math.exp(-(0.8 * log_share + 0.1))), rel=1e-5)
    assert answer.items[2].probability is None
    assert world.recommend("i10", k=1).items[0].probability is None
    assert World(model()).recommend("i10", k=1, include_probability=True).items[0].probability is None  # no calibration
    assert world.recommend(k=1, include_probability=True).items[0].probability is None  # popularity


class NoLists:
    async def keep(self, owner: Owner | None, kept: KeptList) -> Place:
        raise StoreUnavailable("refused")

    async def read(self, owner: Owner | None, name: bytes) -> tuple[KeptList, Place] | None:
        raise StoreUnavailable("refused")


async def test_first_page_comes_though_the_list_cannot_be_kept() -> None:
    paging = Paging(World(model()).recommender, NoLists())
    answer = await paging.first(asked("i10", k=2, exclude_seen=True))
    assert (ids(answer), answer.next_cursor) == (["i9", "i11"], None)
    assert (answer.degraded, answer.reasons) == (True, (Reason.STORE_UNAVAILABLE,))
    with pytest.raises(StoreUnavailable):
        await paging.next(NextPage(None, "A" * 35, None, False))


class OnACircle(CountingRanker):
    """Item n stands at n + n²/100 degrees, so that the likeness of two falls with the distance of their numbers, and of
    two at one distance the smaller number is the nearer one. The last two have no vector."""

    def __init__(self, ranker: Ranker, added: Sequence[tuple[float, float]] = ()) -> None:
        """added: vectors of items behind the model's own."""
        super().__init__(ranker)
        numbers = np.arange(NUM_ITEMS + 1)
        angles_V = np.radians(numbers + numbers**2 / 100)
        vectors_VD = np.stack([np.cos(angles_V), np.sin(angles_V)], axis=1) * (1 + numbers[:, None])
        vectors_VD[-2:] = 0
        self.item_vectors = np.concatenate([vectors_VD, *([row] for row in added)]).astype(np.float32)


NEW = {f"n{number}": {"year": 2026} for number in range(1, 5)}


@settings(max_examples=200, deadline=None)
@given(
    history=st.lists(st.sampled_from([*IDS, "n1"]), max_size=4),
    allowed=st.sets(st.sampled_from([*IDS, *NEW])),
    excluded=st.sets(st.sampled_from([*IDS, *NEW]), max_size=8),
    unavailable=st.sets(st.sampled_from([*NEW]), max_size=3),
    share=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    k=st.integers(1, NUM_ITEMS),
    as_candidates=st.booleans(),
)
def test_places_for_new_items_keep_to_the_request_and_leave_the_others_in_their_order(
    history: list[str],
    allowed: set[str],
    excluded: set[str],
    unavailable: set[str],
    share: float,
    k: int,
    as_candidates: bool,
) -> None:
    """Of the first n of a list ⌊share · n⌋ are new, as long as there are new ones that may come; the distance model,
    which has no vectors, brings none by itself."""
    world = World(model(), sorted(unavailable), **{item: NEW[item] for item in NEW if item not in unavailable})
    what: dict[str, object] = {"k": k, "exclude_items": frozenset(excluded), "exclude_seen": True}
    if as_candidates and allowed:
        what["candidates"] = sorted(allowed)
    elif allowed:
        what["filter"] = condition("item_id", "in", sorted(allowed))
    plain = world.recommend(*history, **what)
    kept = ids(world.recommend(*history, **what, new_item_share=share))
    may_come = set(NEW) - unavailable - excluded - set(history)
    if allowed:
        may_come &= allowed
    assert {item for item in kept if item in NEW} <= may_come
    assert len(set(kept)) == len(kept) >= len(ids(plain))
    for n in range(1, len(kept) + 1):
        assert sum(item in NEW for item in kept[:n]) >= min(math.floor(share * n), len(may_come))
    known = [item for item in kept if item not in NEW]
    assert known == [item for item in ids(plain) if item not in NEW][: len(known)]


def test_place_for_a_new_item_says_so_and_has_no_score() -> None:
    world = World(model(), **NEW)
    pinned = world.recommend("i10", k=11, exclude_seen=True, new_item_share=0.1, pins=(Pin("i20", 1),))
    assert (ids(pinned)[:2], ids(pinned)[-1] in NEW) == (["i20", "i9"], True)
    pinned = world.recommend("i10", k=10, exclude_seen=True, new_item_share=0.1, pins=(Pin("i20", 1),))
    assert (pinned.reasons, {*ids(pinned)} & {*NEW}) == ((), set()), "nine places beside the pin"
    answer = world.recommend("i10", k=10, exclude_seen=True, new_item_share=0.1)
    assert answer.items[-1].item_id in NEW
    assert math.isnan(answer.items[-1].score)
    assert answer.reasons == (Reason.NEW_ITEMS,)
    assert world.recommend("i10", k=9, exclude_seen=True, new_item_share=0.1).reasons == ()
    assert not {*NEW} & {*ids(world.recommend(k=10, strategy="popular", new_item_share=0.5))}, (
        "asked for what is popular"
    )


def test_equal_new_items_are_shared_out_among_users_and_each_user_keeps_theirs() -> None:
    """Four new items of which nothing is known, one place in ten: a hundred users are shown each about 25 times; below
    10 has a probability under 1 in 10,000."""
    world = World(model(), **NEW)

    def shown(user: int) -> str:
        request = RecommendationRequest(Owner("user", f"u{user}"), None, k=10, new_item_share=0.1)
        return ids(asyncio.run(world.recommender.recommend(request)))[-1]

    once = [shown(user) for user in range(100)]
    assert [shown(user) for user in range(100)] == once
    assert min(once.count(item) for item in NEW) >= 10
    assert set(once) == set(NEW)


def test_new_item_most_like_the_newest_ones_of_the_history_has_the_place() -> None:
    """Items and new ones stand on a circle; the new ones at 0°, 90°, 180° and 270°, a history at 11° and 9.8°."""
    angles = [math.pi * number / 2 for number in range(4)]
    ranker = OnACircle(model().ranker, [(math.cos(angle), math.sin(angle)) for angle in angles])
    world = World(replace(model(), ranker=ranker), **NEW)
    answer = world.recommend("i9", "i10", k=10, exclude_seen=True, new_item_share=0.1)
    assert answer.items[-1].item_id == "n1"
    answer = world.recommend("i9", "i10", k=10, exclude_seen=True, new_item_share=0.1, exclude_items=frozenset({"n1"}))
    assert answer.items[-1].item_id == "n2"


def similar(world: World, *item_ids: str, **what: object) -> Recommendation:
    excluded = {*item_ids} | {*what.pop("exclude_items", ())}  # type: ignore[call-overload]
    request = asked(*item_ids, exclude_seen=False, exclude_items=frozenset(excluded), **what)
    return asyncio.run(world.recommender.similar(request))


def test_diversity_spreads_the_list_over_vectors_and_attributes_half_and_half() -> None:
    """i9 stands at 9.8°, i18 at 21.2°, i1 at 1.0°, i12 at 13.4°, i11 at 12.2°, i8 at 8.6°."""
    items = ["i9", "i11", "i8", "i12", "i1", "i18"]
    live = replace(model(), ranker=OnACircle(model().ranker))
    spread = {"candidates": items, "k": 3, "diversity": 1.0}
    assert ids(World(live).recommend("i10", **spread)) == ["i9", "i18", "i1"]
    makers = {"i9": "a", "i18": "a", "i12": "a", "i1": "b", "i8": "b"}
    world = World(live, **{item_id: {"maker": maker} for item_id, maker in makers.items()})
    # Most like one taken before are i18 and i12 as of i9's maker, then i8 as of i1's; i11 is of none.
    assert ids(world.recommend("i10", **spread)) == ["i9", "i1", "i11"]


def test_similar_items_are_the_nearest_ones_and_never_the_item_itself() -> None:
    world = World(replace(model(), ranker=OnACircle(model().ranker)), ["i11"])
    answer = similar(world, "i10", k=4)
    assert (ids(answer), answer.strategy, answer.reasons) == (["i9", "i8", "i12", "i7"], "similar", ())
    # i9 stands at 9.81°, i10 at 11°: (1 + cos 1.19°) / 2
    assert answer.items[0].score == pytest.approx((1 + math.cos(math.radians(1.19))) / 2, abs=1e-6)
    assert ids(similar(world, "i2", "i6", k=3)) == ["i4", "i5", "i3"]  # 2.04° and 6.36°: between them 4.2°


def test_similar_items_keep_to_the_request() -> None:
    world = World(replace(model(), ranker=OnACircle(model().ranker)), new={})
    older = condition("year", "gte", FIRST_YEAR + 11)  # i12 and above
    answer = similar(world, "i10", k=9, filter=older, exclude_items=frozenset({"i13"}), pins=(Pin("i19", 2),))
    assert ids(answer) == ["i12", "i19", "i14", "i15", "i16", "i17", "i18"]  # i20 and new have no vector
    assert answer.reasons == (Reason.SHORT_CATALOGUE,)
    boosts = (Boost(condition("item_id", "eq", "i1"), 2.0),)
    assert ids(similar(world, "i10", k=2, boosts=boosts)) == ["i1", "i9"]


def test_without_a_vector_what_comes_next_answers_or_what_is_popular() -> None:
    """The distance model ranks around the last of the items given."""
    for world in (World(replace(model(), ranker=OnACircle(model().ranker))), World(model())):
        for item_ids, strategy, expected in (
            (["i20"], "model", ["i19", "i18"]),
            (["i20", "i19"], "model", ["i18", "i17"]),
            (["i19", "unknown"], "model", ["i18", "i20"]),
            (["unknown"], "popular", ["i20", "i19"]),
        ):
            answer = similar(world, *item_ids, k=2)
            assert (ids(answer), answer.strategy) == (expected, strategy)
            assert answer.reasons == (*((Reason.NO_KNOWN_ITEM,) if strategy == "popular" else ()), Reason.NO_VECTOR)


def test_without_a_model_the_counters_answer_for_similar_items(without_model: World) -> None:
    answer = similar(without_model, "i3", k=2)
    assert (ids(answer), answer.strategy, answer.reasons) == (["new", "i2"], "popular", (Reason.NO_MODEL,))


@pytest.fixture
def without_model() -> World:
    """Counted are i3, new, i1 and i2; the catalogue knows of i1, which is unavailable, of i2 and of i4."""
    return World(None, ["i1"], i2={"year": 1991}, i4={"year": 1993})


def test_without_a_model_the_counters_keep_to_the_request(without_model: World) -> None:
    assert ids(without_model.recommend(k=9)) == ["i3", "new", "i2", "i4"]
    answer = without_model.recommend(k=9, candidates=["i2", "new", "i99"])
    assert (ids(answer), Reason.UNKNOWN_CANDIDATES in answer.reasons) == (["new", "i2"], True)
    assert Reason.UNKNOWN_CANDIDATES not in without_model.recommend(k=9, candidates=["i2", "new"]).reasons
    assert ids(without_model.recommend(k=9, exclude_items=frozenset({"i3"}))) == ["new", "i2", "i4"]
    assert ids(without_model.recommend(k=9, filter=condition("year", "lt", 2000))) == ["i2", "i4"]
    boosts = (Boost(condition("year", "lt", 2000), 10.0),)
    boosted = without_model.recommend(k=2, boosts=boosts)
    assert [(item.item_id, item.score) for item in boosted.items] == [("i2", 10.0), ("i3", 8.0)]
    pinned = without_model.recommend("i4", k=2, exclude_seen=True, pins=(Pin("i4", 1), Pin("i1", 2)))
    assert (ids(pinned), pinned.reasons) == (["i4", "i3"], (Reason.NO_MODEL, Reason.PIN_LEFT_OUT))
