"""What may come back for one request, decided before anything is ranked.

Shapes: V catalogue with padding (column = item index).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.ranking.ranker import ItemSequence
from app.ranking.rerank import boost
from app.recommender.requests import Question, Reason, RecommendationRequest, Strategy
from app.recommender.sequences import encode, relevant
from app.state.catalogue import CatalogueView

POOL = 10
MAX_POOL = 500
"""Diversity chooses from the best `POOL` · k items, at most `MAX_POOL`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One request over one model and one state of the catalogue.

    adjust_V: added to the scores, −inf hides, None changes nothing. `pins` are hidden in it, for each has its place.
    pins: item index by position.
    """

    request: RecommendationRequest
    live: LiveModel
    view: CatalogueView
    num_events: int
    sequence: ItemSequence
    adjust_V: NDArray[np.float32] | None
    pins: dict[int, int]
    reasons: tuple[Reason, ...]

    @property
    def strategy(self) -> Strategy:
        return "model" if self.sequence.items else "popular"

    @property
    def num_ranked(self) -> int:
        """How many items the ranking must hold, so that `k` are left after reranking."""
        k = self.request.k
        return max(k, min(POOL * k, MAX_POOL)) if self.request.diversity > 0 else k


def make_plan(question: Question, live: LiveModel, view: CatalogueView) -> Plan:
    """Raises InvalidRequest for a filter that does not fit the catalogue."""
    request = question.request
    events = question.events if request.history is None else relevant(request.history, live)
    sequence = encode(events, live)
    reasons: list[Reason] = []
    if question.store_failed:
        reasons.append(Reason.STORE_UNAVAILABLE)
    elif not sequence.items:
        reasons.append(Reason.UNKNOWN_USER if request.owner and not events else Reason.NO_KNOWN_ITEM)
    adjust_V = _restricted(request, view)
    if request.candidates is not None and any(view.index_of(item_id) is None for item_id in request.candidates):
        reasons.append(Reason.UNKNOWN_CANDIDATES)
    gone = _indices(request.exclude_items, view)
    pins = _pins(request, view, adjust_V, gone)
    if len(pins) < len(request.pins):
        reasons.append(Reason.PIN_LEFT_OUT)
    if request.exclude_seen if request.exclude_seen is not None else live.manifest.exclude_seen:
        gone |= _indices((event.item_id for event in events), view)
    gone.update(pins.values())
    if gone or request.boosts:
        if adjust_V is None:
            adjust_V = np.zeros(view.num_items + 1, dtype=np.float32)
        adjust_V[list(gone)] = -np.inf
        for place, each in enumerate(request.boosts):
            boost(adjust_V, view.mask(each.filter, pointer=f"/boosts/{place}/filter"), each.factor)
    return Plan(request, live, view, len(events), sequence, adjust_V, pins, tuple(reasons))


def _restricted(request: RecommendationRequest, view: CatalogueView) -> NDArray[np.float32] | None:
    """0 for the items that are available, that the filter lets through and that are candidates; −inf for the others."""
    if request.candidates is not None:
        adjust_V = np.full(view.num_items + 1, -np.inf, dtype=np.float32)
        adjust_V[list(_indices(request.candidates, view))] = 0.0
    elif request.filter is not None or len(view.hidden_items):
        adjust_V = np.zeros(view.num_items + 1, dtype=np.float32)
    else:
        return None
    if request.filter is not None:
        adjust_V[~view.mask(request.filter, pointer="/filter")] = -np.inf
    adjust_V[view.hidden_items] = -np.inf
    return adjust_V


def _pins(
    request: RecommendationRequest, view: CatalogueView, adjust_V: NDArray[np.float32] | None, gone: set[int]
) -> dict[int, int]:
    """Item indices by position, of the pins whose item may come."""
    pins = {}
    for pin in request.pins:
        index = view.index_of(pin.item_id)
        if index is not None and index not in gone and (adjust_V is None or adjust_V[index] == 0):
            pins[pin.position] = index
    return pins


def _indices(item_ids: Iterable[str], view: CatalogueView) -> set[int]:
    """Those that the catalogue knows."""
    index_of = view.index_of
    return {index for item_id in item_ids if (index := index_of(item_id)) is not None}
