"""From one request to ranked items: read the history, encode it, hide what must not come, rank, decode."""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

import numpy as np

from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType
from app.artifacts.registry import LiveModel
from app.errors import StoreUnavailable
from app.ranking.ranker import ItemSequence
from app.state.event_log import ServedRecord
from app.state.history import HistoryEvent, Owner

Strategy = Literal["model", "popular"]


class Reason(StrEnum):
    """Why an answer is not what a model makes of a full history."""

    UNKNOWN_USER = "unknown_user"
    NO_KNOWN_ITEM = "no_known_item"
    NO_MODEL = "no_model"
    STORE_UNAVAILABLE = "store_unavailable"
    SHORT_CATALOGUE = "short_catalogue"


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """Exactly one of `owner` and `history` is given. `exclude_seen` None means what the live model's manifest says."""

    owner: Owner | None
    history: Sequence[HistoryEvent] | None
    k: int
    exclude_seen: bool | None = None
    exclude_items: frozenset[str] = frozenset()
    include_attributes: bool = False


@dataclass(frozen=True, slots=True)
class RankedItem:
    """`rank` counts from 1; `score` falls with it. `attributes` is None unless they were asked for."""

    item_id: str
    rank: int
    score: float
    attributes: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`history_length` counts the stored (or given) events, known to the model or not."""

    recommendation_id: str
    strategy: Strategy
    degraded: bool
    reasons: tuple[Reason, ...]
    model_version: str | None
    history_length: int
    items: tuple[RankedItem, ...]


class Histories(Protocol):
    """Where sequences live."""

    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        """Oldest first. Raises StoreUnavailable."""
        ...


class Models(Protocol):
    """Which model is live."""

    @property
    def live(self) -> LiveModel | None: ...


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
        popular: PopularItems,
        served: ServedLog,
    ) -> None:
        self._histories = histories
        self._models = models
        self._popular = popular
        self._served = served

    async def recommend(self, request: RecommendationRequest) -> Recommendation:
        """Always answers: without a model or a known item by popularity, without the store `degraded`."""
        live = self._models.live  # once: a reload between two reads would mix two vocabularies
        reasons: list[Reason] = []
        events = await self._events(request, live, reasons)
        if live is None:
            reasons.append(Reason.NO_MODEL)
            ranked = await self._stored_popularity(request, events, reasons)
            strategy: Strategy = "popular"
        else:
            sequence = encode(events, live)
            hidden = hidden_items(request, events, live)
            if sequence.items:
                strategy, ranked = "model", rank_by_model(live, sequence, hidden, request.k)
            else:
                strategy, ranked = "popular", rank_by_popularity(live, hidden, request.k)
                if not reasons:
                    reasons.append(Reason.UNKNOWN_USER if request.owner and not events else Reason.NO_KNOWN_ITEM)
        if len(ranked) < request.k:
            reasons.append(Reason.SHORT_CATALOGUE)
        recommendation = Recommendation(
            recommendation_id="rec_" + secrets.token_urlsafe(12),
            strategy=strategy,
            degraded=Reason.STORE_UNAVAILABLE in reasons,
            reasons=tuple(dict.fromkeys(reasons)),
            model_version=live.version if live is not None else None,
            history_length=len(events),
            items=tuple(
                RankedItem(item_id, rank, score, attributes_of(item_id, live) if request.include_attributes else None)
                for rank, (item_id, score) in enumerate(ranked, start=1)
            ),
        )
        self._log(request.owner, recommendation)
        return recommendation

    async def _events(
        self, request: RecommendationRequest, live: LiveModel | None, reasons: list[Reason]
    ) -> Sequence[HistoryEvent]:
        if request.owner is None:
            event_types = live.manifest.event_types if live is not None else DEFAULT_EVENT_TYPES
            return [event for event in request.history or () if enters_sequence(event.event_type, event_types)]
        try:
            return await self._histories.read(request.owner)
        except StoreUnavailable:
            reasons.append(Reason.STORE_UNAVAILABLE)
            return ()

    async def _stored_popularity(
        self, request: RecommendationRequest, events: Iterable[HistoryEvent], reasons: list[Reason]
    ) -> list[tuple[str, float]]:
        hidden = set(request.exclude_items)
        if request.exclude_seen:
            hidden.update(event.item_id for event in events)
        try:
            top = await self._popular.top()
        except StoreUnavailable:
            reasons.append(Reason.STORE_UNAVAILABLE)
            return []
        return [(item_id, count) for item_id, count in top if item_id not in hidden][: request.k]

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


def enters_sequence(event_type: str, event_types: dict[str, EventType]) -> bool:
    """A type that the map does not name enters the sequence."""
    declared = event_types.get(event_type)
    return declared is None or declared.enters_sequence


def encode(events: Sequence[HistoryEvent], live: LiveModel) -> ItemSequence:
    """The newest `max_length` events whose item the model knows, oldest first."""
    index_of, event_types, max_length = live.vocabulary.index_of, live.manifest.event_types, live.manifest.max_length
    items: list[int] = []
    timestamps_ms: list[int] = []
    types: list[int] = []
    for item_id, event_type, timestamp_us in reversed(events):
        index = index_of(item_id)
        if index is None or not enters_sequence(event_type, event_types):
            continue
        items.append(index)
        timestamps_ms.append(timestamp_us // 1000)
        types.append(event_types[event_type].index if event_type in event_types else 0)
        if len(items) == max_length:
            break
    return ItemSequence(items[::-1], timestamps_ms[::-1], types[::-1])


def hidden_items(request: RecommendationRequest, events: Sequence[HistoryEvent], live: LiveModel) -> set[int]:
    """Item indices that must not come back: excluded ones, and seen ones where seen items are excluded."""
    item_ids = set(request.exclude_items)
    if request.exclude_seen if request.exclude_seen is not None else live.manifest.exclude_seen:
        item_ids.update(event.item_id for event in events)
    return {index for item_id in item_ids if (index := live.vocabulary.index_of(item_id)) is not None}


def rank_by_model(live: LiveModel, sequence: ItemSequence, hidden: set[int], k: int) -> list[tuple[str, float]]:
    adjust_BV = None
    if hidden:
        adjust_BV = np.zeros((1, live.manifest.num_items + 1), dtype=np.float32)
        adjust_BV[0, list(hidden)] = -np.inf
    ranking = live.ranker.rank([sequence], k, adjust_BV)[0]
    return [
        (live.vocabulary.id_of(index), score)
        for index, score in zip(ranking.item_indices.tolist(), ranking.scores.tolist(), strict=True)
    ]


def rank_by_popularity(live: LiveModel, hidden: set[int], k: int) -> list[tuple[str, float]]:
    """The artifact's own counts, ties by item index."""
    ranked: list[tuple[str, float]] = []
    for index in live.popular_items:
        if index in hidden:
            continue
        ranked.append((live.vocabulary.id_of(index), float(live.popularity[index])))
        if len(ranked) == k:
            break
    return ranked


def attributes_of(item_id: str, live: LiveModel | None) -> dict[str, Any]:
    """Empty for an item that the artifact does not hold."""
    index = live.vocabulary.index_of(item_id) if live is not None else None
    return live.attributes[index] if live is not None and index is not None else {}
