"""From one request to ranked items: read the history, decide what may come, rank, rerank, decode."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from app.artifacts.registry import LiveModel
from app.errors import RequestError, StoreUnavailable
from app.ranking.batching import MAX_ITEMS_INLINE, MAX_SCORES, Batcher
from app.ranking.similar import SimilarItems
from app.recommender.attribution import new_recommendation_id
from app.recommender.cold_items import ColdItems
from app.recommender.counters import rank_by_counters
from app.recommender.live_rules import LiveRules
from app.recommender.plan import Plan, make_plan
from app.recommender.popular import Counters, KeptWeights
from app.recommender.ranked import (
    explained,
    listed_by_likeness,
    listed_by_model,
    listed_by_weights,
    rank_each,
    with_probabilities,
)
from app.recommender.requests import Question, RankedItem, RankedList, Reason, Recommendation, RecommendationRequest
from app.recommender.sources import Catalogues, Histories, Models
from app.state.catalogue import CatalogueView
from app.state.event_log import ServedRecord
from app.state.history import Owner


class PopularItems(Protocol):
    """The store's own counters."""

    async def top(self) -> Sequence[tuple[str, float]]:
        """Item ids with their counts, by falling count. Raises StoreUnavailable."""
        ...

    async def trending(self) -> Sequence[tuple[str, float]]:
        """Those with more events of late than they use to have, and how surprising that is. Raises StoreUnavailable."""
        ...


class ServedLog(Protocol):
    """Takes what was shown; never waits."""

    def record(self, record: ServedRecord) -> None: ...


class Recommender:
    """One per worker; safe for concurrent requests."""

    def __init__(
        self,
        histories: Histories,
        models: Models,
        catalogue: Catalogues,
        popular: PopularItems,
        served: ServedLog,
        batcher: Batcher,
        live_rules: LiveRules | None = None,
        *,
        new_item_share: float = 0.0,
    ) -> None:
        """new_item_share: for requests that name none."""
        self._histories = histories
        self._models = models
        self._catalogue = catalogue
        self._popular = popular
        self._served = served
        self._batcher = batcher
        self._kept = KeptWeights()
        self._similar_items = SimilarItems()
        self._cold_items = ColdItems()
        self._live_rules = live_rules
        self._new_item_share = new_item_share

    async def recommend(self, request: RecommendationRequest) -> Recommendation:
        """Always answers: without a model or a known item by popularity, without the store `degraded`.

        Raises:
            InvalidRequest: a filter does not fit the catalogue.
        """
        answer = await self.rank(request)
        self.log(request.owner, answer)
        return answer

    async def rank(self, request: RecommendationRequest) -> Recommendation:
        """What `recommend` answers, for a caller that shows it in its own way and has that logged."""
        question = await self._question(request)
        live, view = self._items()
        if live is None:
            return made(rank_by_counters(question, view, await self._counters(request)), live, view)
        plan = make_plan(question, live, view)
        return made(await self._ranked(plan, question), live, view)

    async def similar(self, request: RecommendationRequest) -> Recommendation:
        """Items like those of the request's `history`, by the model's vectors.

        Where it shows no vector of any of them: what it ranks first after them; what is popular where it knows none.

        Raises:
            InvalidRequest: a filter does not fit the catalogue.
        """
        question = await self._question(request)
        live, view = self._items()
        if live is None:
            return self._answer(rank_by_counters(question, view, await self._counters(request)), live, view)
        plan = make_plan(question, live, view)
        indices = [index for event in request.history or () if (index := view.index_of(event.item_id)) is not None]
        if view.num_items <= MAX_ITEMS_INLINE:
            ranked = self._alike(plan, indices)
        else:
            ranked = await asyncio.to_thread(self._alike, plan, indices)
        if ranked is None:
            ranked = await self._ranked(replace(plan, reasons=(*plan.reasons, Reason.NO_VECTOR)), question)
        return self._answer(ranked, live, view)

    def _alike(self, plan: Plan, indices: Sequence[int]) -> RankedList | None:
        likeness_V = self._similar_items.likeness(plan.live.ranker, indices)
        return None if likeness_V is None else listed_by_likeness(plan, likeness_V)

    async def _ranked(self, plan: Plan, question: Question) -> RankedList:
        if plan.strategy == "model":
            ranked = listed_by_model(plan, await self._batcher.rank(plan.live.ranker, plan.query))
            # In threads: they run the model again, the explanation over as many histories as there are events.
            if plan.request.include_probability:
                ranked = await asyncio.to_thread(with_probabilities, plan, ranked)
            return await asyncio.to_thread(explained, plan, ranked) if plan.request.explain else ranked
        counters = Counters(is_known=False) if question.store_failed else await self._counters(plan.request)
        return listed_by_weights(plan, self._kept.of(plan.strategy, counters, plan.live, plan.view))

    async def recommend_all(self, requests: Sequence[RecommendationRequest]) -> list[Recommendation | RequestError]:
        """What `recommend` would answer to each, or raise.

        One round trip to the store and one run of the model, or two (`rank_each`); more where the catalogue is so large
        that one would take too much memory.
        """
        questions = await asyncio.gather(*(self._question(request) for request in requests))
        live, view = self._items()
        counters = await self._counters(*requests)
        at_once = max(1, MAX_SCORES // (view.num_items + 1))
        answers: list[Recommendation | RequestError] = []
        for start in range(0, len(questions), at_once):
            # In a thread: other requests have their turn meanwhile.
            some = questions[start : start + at_once]
            for outcome in await asyncio.to_thread(rank_each, some, live, view, counters, self._kept):
                answers.append(outcome if isinstance(outcome, RequestError) else self._answer(outcome, live, view))
        return answers

    def _items(self) -> tuple[LiveModel | None, CatalogueView]:
        """The model and the catalogue of this moment, once per request: a reload between would mix two vocabularies."""
        live = self._models.live
        view = self._catalogue.view(live)
        if live is not None:
            live = self._cold_items.lengthened(live, view)
            live = self._live_rules.applied(live, view) if self._live_rules is not None else live
        return live, view

    async def _question(self, request: RecommendationRequest) -> Question:
        event_types = self._models.event_types
        if request.new_item_share is None:
            request = replace(request, new_item_share=self._new_item_share)
        if request.owner is None:
            return Question(request, (), event_types)
        try:
            return Question(request, await self._histories.read(request.owner), event_types)
        except StoreUnavailable:
            return Question(request, (), event_types, store_failed=True)

    async def _counters(self, *requests: RecommendationRequest) -> Counters:
        """What the requests may need of them."""
        wants_trending = any(request.strategy == "trending" for request in requests)
        try:
            return Counters(await self._popular.top(), await self._popular.trending() if wants_trending else ())
        except StoreUnavailable:
            return Counters(is_known=False)

    def _answer(self, ranked: RankedList, live: LiveModel | None, view: CatalogueView) -> Recommendation:
        recommendation = made(ranked, live, view)
        self.log(ranked.request.owner, recommendation)
        return recommendation

    def attributes(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Of each item as they are now; empty for one that the catalogue does not know."""
        view = self._catalogue.view(self._models.live)
        return [attributes_of(item_id, view) for item_id in item_ids]

    def are_available(self, item_ids: Sequence[str]) -> Iterator[bool]:
        """Of each item, whether it may be shown now; one that the catalogue does not know may."""
        view = self._catalogue.view(self._models.live)
        for item_id in item_ids:
            index = view.index_of(item_id)
            yield index is None or not view.hidden[index]

    def log(self, owner: Owner | None, recommendation: Recommendation) -> None:
        """Keep what was shown, to whom."""
        self._served.record(
            ServedRecord(
                recommendation_id=recommendation.recommendation_id,
                owner=owner,
                timestamp_us=time.time_ns() // 1000,
                model_version=recommendation.model_version,
                strategy=recommendation.strategy,
                item_ids=tuple(item.item_id for item in recommendation.items),
                scores=tuple(item.score for item in recommendation.items),
                first_position=recommendation.items[0].rank if recommendation.items else 1,
            )
        )


def made(ranked: RankedList, live: LiveModel | None, view: CatalogueView) -> Recommendation:
    request, reasons = ranked.request, ranked.reasons
    if len(ranked.items) < request.k:
        reasons = (*reasons, Reason.SHORT_CATALOGUE)
    return Recommendation(
        recommendation_id=new_recommendation_id(ranked.strategy, live.version if live is not None else None),
        strategy=ranked.strategy,
        degraded=Reason.STORE_UNAVAILABLE in reasons,
        reasons=reasons,
        model_version=live.version if live is not None else None,
        history_length=ranked.history_length,
        items=tuple(
            RankedItem(
                item_id,
                rank,
                score,
                attributes_of(item_id, view) if request.include_attributes else None,
                None if not request.explain else ranked.because[rank - 1] if ranked.because is not None else (),
                ranked.probabilities[rank - 1] if ranked.probabilities is not None else None,
            )
            for rank, (item_id, score) in enumerate(ranked.items, start=1)
        ),
    )


def attributes_of(item_id: str, view: CatalogueView) -> dict[str, Any]:
    """Empty for an item that the catalogue does not know."""
    index = view.index_of(item_id)
    return view.attributes(index) if index is not None else {}
