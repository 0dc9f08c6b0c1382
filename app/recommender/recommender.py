"""From one request to ranked items: read the history, decide what may come, rank, rerank, decode."""

import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

from app.artifacts.registry import LiveModel
from app.errors import StoreUnavailable
from app.recommender.counters import rank_by_counters
from app.recommender.plan import make_plan
from app.recommender.ranked import rank_by_counts, rank_by_model
from app.recommender.requests import RankedItem, Reason, Recommendation, RecommendationRequest, Strategy
from app.recommender.sequences import relevant
from app.state.catalogue import CatalogueView
from app.state.event_log import ServedRecord
from app.state.history import HistoryEvent, Owner


class Histories(Protocol):
    """Where sequences live."""

    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        """Oldest first. Raises StoreUnavailable."""
        ...


class Models(Protocol):
    """Which model is live."""

    @property
    def live(self) -> LiveModel | None: ...


class Catalogues(Protocol):
    """Which items there are now."""

    def view(self, model: LiveModel | None) -> CatalogueView: ...


class PopularItems(Protocol):
    """The store's own counters."""

    async def top(self) -> Sequence[tuple[str, float]]:
        """Item ids with their counts, by falling count. Raises StoreUnavailable."""
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
    ) -> None:
        self._histories = histories
        self._models = models
        self._catalogue = catalogue
        self._popular = popular
        self._served = served

    async def recommend(self, request: RecommendationRequest) -> Recommendation:
        """Always answers: without a model or a known item by popularity, without the store `degraded`.

        Raises:
            InvalidRequest: a filter does not fit the catalogue.
        """
        stored, reasons = await self._stored(request)
        live = self._models.live  # once: a reload between two reads would mix two vocabularies
        view = self._catalogue.view(live)
        events = stored if request.history is None else relevant(request.history, live)
        if live is None:
            return await self._recommend_without_model(request, events, view, reasons)
        plan = make_plan(request, events, live, view, reasons)
        ranked = rank_by_model(live, [plan])[0] if plan.strategy == "model" else rank_by_counts(plan)
        named = [(view.id_of(index), score) for index, score in ranked]
        return self._answer(request, plan.strategy, live, view, plan.num_events, named, plan.reasons)

    async def _stored(self, request: RecommendationRequest) -> tuple[Sequence[HistoryEvent], list[Reason]]:
        if request.owner is None:
            return (), []
        try:
            return await self._histories.read(request.owner), []
        except StoreUnavailable:
            return (), [Reason.STORE_UNAVAILABLE]

    async def _recommend_without_model(
        self,
        request: RecommendationRequest,
        events: Sequence[HistoryEvent],
        view: CatalogueView,
        reasons: list[Reason],
    ) -> Recommendation:
        top: Sequence[tuple[str, float]] = ()
        try:
            top = await self._popular.top()
        except StoreUnavailable:
            reasons.append(Reason.STORE_UNAVAILABLE)
        ranked, more = rank_by_counters(request, events, view, top)
        return self._answer(request, "popular", None, view, len(events), ranked, [*reasons, Reason.NO_MODEL, *more])

    def _answer(
        self,
        request: RecommendationRequest,
        strategy: Strategy,
        live: LiveModel | None,
        view: CatalogueView,
        history_length: int,
        ranked: Sequence[tuple[str, float]],
        reasons: Sequence[Reason],
    ) -> Recommendation:
        if len(ranked) < request.k:
            reasons = [*reasons, Reason.SHORT_CATALOGUE]
        recommendation = Recommendation(
            recommendation_id="rec_" + secrets.token_urlsafe(12),
            strategy=strategy,
            degraded=Reason.STORE_UNAVAILABLE in reasons,
            reasons=tuple(dict.fromkeys(reasons)),
            model_version=live.version if live is not None else None,
            history_length=history_length,
            items=tuple(
                RankedItem(item_id, rank, score, attributes_of(item_id, view) if request.include_attributes else None)
                for rank, (item_id, score) in enumerate(ranked, start=1)
            ),
        )
        self._log(request.owner, recommendation)
        return recommendation

    def _log(self, owner: Owner | None, recommendation: Recommendation) -> None:
        self._served.record(
            ServedRecord(
                recommendation_id=recommendation.recommendation_id,
                owner=owner,
                timestamp_us=time.time_ns() // 1000,
                model_version=recommendation.model_version,
                strategy=recommendation.strategy,
                item_ids=tuple(item.item_id for item in recommendation.items),
                scores=tuple(item.score for item in recommendation.items),
            )
        )


def attributes_of(item_id: str, view: CatalogueView) -> dict[str, Any]:
    """Empty for an item that the catalogue does not know."""
    index = view.index_of(item_id)
    return view.attributes(index) if index is not None else {}
