"""What may come back for one request, decided before anything is ranked.

Shapes: V catalogue with padding (column = item index).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.errors import Fault, InvalidRequest
from app.ranking.batching import Query
from app.ranking.ranker import ItemSequence
from app.ranking.rerank import boost
from app.recommender.requests import Popular, Question, Reason, RecommendationRequest
from app.recommender.sequences import encode, gone_items, relevant
from app.state.catalogue import CatalogueView

POOL = 10
MAX_POOL = 500
"""Diversity chooses from the best `POOL` · k items, at most `MAX_POOL`."""
MAX_HIDDEN = 300
"""Up to so many unavailable items are passed over in a longer ranking, which costs less than a row as wide as the
catalogue."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One request over one model and one state of the catalogue.

    adjust_V: added to the scores, −inf hides; None adds nothing. Made only where a request restricts or boosts items.
    hidden: further item indices that must not be ranked; `pins` are among them, for each has its place.
    pins: item index by position.
    """

    request: RecommendationRequest
    live: LiveModel
    view: CatalogueView
    num_events: int
    sequence: ItemSequence
    adjust_V: NDArray[np.float32] | None
    hidden: frozenset[int]
    pins: dict[int, int]
    reasons: tuple[Reason, ...]

    @property
    def strategy(self) -> Literal["model"] | Popular:
        return self.request.strategy or ("model" if self.sequence.items else "popular")

    @property
    def num_ranked(self) -> int:
        """How many items the ranking must hold, so that `k` are left after reranking."""
        k = self.request.k
        return max(k, min(POOL * k, MAX_POOL)) if self.request.diversity > 0 else k

    @property
    def new_item_share(self) -> float:
        """What `keep_places` keeps; nothing where the caller wants what many choose."""
        return self.request.new_item_share or 0.0 if self.request.strategy is None else 0.0

    @property
    def num_new(self) -> int:
        """How many new items the list may have to bring in."""
        if self.view.num_items == self.view.num_model_items:
            return 0
        return int(self.new_item_share * self.num_beside_pins + 1e-9)

    @property
    def num_beside_pins(self) -> int:
        """Places of the list that no pin takes."""
        return self.request.k - sum(position <= self.request.k for position in self.pins)

    @property
    def discount(self) -> NDArray[np.float32] | None:
        """`LiveModel.discount` in the columns that the model has; none of items that were appended and have no events
        that it could have learnt from."""
        discount_V = self.live.discount
        return None if discount_V is None else np.pad(discount_V, (0, self.live.ranker.num_items + 1 - len(discount_V)))

    @property
    def query(self) -> Query:
        """What the model is asked, in the columns that it has: of the items added live it may know fewer."""
        num_columns = self.live.ranker.num_items + 1
        adjust_V, hidden = self.adjust_V, self.hidden
        if self.view.num_items >= num_columns:
            hidden = frozenset(index for index in hidden if index < num_columns)
        if adjust_V is not None and len(adjust_V) != num_columns:
            adjust_V = np.pad(adjust_V[:num_columns], (0, max(0, num_columns - len(adjust_V))), constant_values=-np.inf)
        discount_V = self.discount
        if discount_V is not None:
            adjust_V = discount_V if adjust_V is None else adjust_V + discount_V
        return Query(self.sequence, self.num_ranked, hidden, adjust_V)


def make_plan(question: Question, live: LiveModel, view: CatalogueView) -> Plan:
    """Raises InvalidRequest for a filter that does not fit the catalogue, or a type that the model has no head for."""
    request = question.request
    events = question.events if request.history is None else relevant(request.history, live.manifest.event_types)
    sequence = replace(encode(events, live, view), target_type=_target_type(request, live))
    reasons: list[Reason] = []
    if question.store_failed:
        reasons.append(Reason.STORE_UNAVAILABLE)
    elif request.strategy is None and not sequence.items:
        reasons.append(Reason.UNKNOWN_USER if request.owner and not events else Reason.NO_KNOWN_ITEM)
    if request.candidates is not None and any(view.index_of(item_id) is None for item_id in request.candidates):
        reasons.append(Reason.UNKNOWN_CANDIDATES)
    adjust_V = _restricted(request, view)
    hidden = _indices(request.exclude_items, view)
    if adjust_V is None:
        hidden.update(view.hidden_items.tolist())
    pins = _pins(request, view, adjust_V, hidden)
    if len(pins) < len(request.pins):
        reasons.append(Reason.PIN_LEFT_OUT)
    exclude_seen = request.exclude_seen if request.exclude_seen is not None else live.manifest.exclude_seen
    hidden |= _indices(gone_items(events, live.manifest.event_types, exclude_seen=exclude_seen), view)
    hidden.update(pins.values())
    return Plan(request, live, view, len(events), sequence, adjust_V, frozenset(hidden), pins, tuple(reasons))


def _target_type(request: RecommendationRequest, live: LiveModel) -> int:
    """What the graph's `target_type` carries for what the request asks for."""
    wanted, known = request.target_event_type, live.manifest.target_event_types
    if wanted is None:
        return 0
    if wanted not in known:
        has = f"ranks for {', '.join(known)}, not for {wanted!r}" if known else "does not tell event types apart"
        detail = f"The live model {has}"
        raise InvalidRequest(detail + ".", faults=[Fault(detail, "/target_event_type")])
    return live.manifest.event_types[wanted].index


def _restricted(request: RecommendationRequest, view: CatalogueView) -> NDArray[np.float32] | None:
    """Logarithms of the boosts for items that are available, candidates and let through by the filter; −inf for others.

    None where nothing of the kind is asked and few items are unavailable.
    """
    if request.candidates is not None:
        adjust_V = np.full(view.num_items + 1, -np.inf, dtype=np.float32)
        adjust_V[list(_indices(request.candidates, view))] = 0.0
    elif request.filter is not None or request.boosts or len(view.hidden_items) > MAX_HIDDEN:
        adjust_V = np.zeros(view.num_items + 1, dtype=np.float32)
    else:
        return None
    if request.filter is not None:
        adjust_V[~view.mask(request.filter, pointer="/filter")] = -np.inf
    adjust_V[view.hidden_items] = -np.inf
    for place, each in enumerate(request.boosts):
        boost(adjust_V, view.mask(each.filter, pointer=f"/boosts/{place}/filter"), each.factor)
    return adjust_V


def _pins(
    request: RecommendationRequest, view: CatalogueView, adjust_V: NDArray[np.float32] | None, hidden: set[int]
) -> dict[int, int]:
    """Item indices by position, of the pins whose item may come."""
    pins = {}
    for pin in request.pins:
        index = view.index_of(pin.item_id)
        if index is not None and index not in hidden and (adjust_V is None or adjust_V[index] != -np.inf):
            pins[pin.position] = index
    return pins


def _indices(item_ids: Iterable[str], view: CatalogueView) -> set[int]:
    """Those that the catalogue knows."""
    index_of = view.index_of
    return {index for item_id in item_ids if (index := index_of(item_id)) is not None}
