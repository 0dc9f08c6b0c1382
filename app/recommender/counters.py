"""Popularity by the store's own counters, while no model is live."""

from itertools import chain, islice

from app.ranking.rerank import place_pins
from app.recommender.popular import Counters, weigh
from app.recommender.requests import Question, RankedList, Reason
from app.recommender.sequences import gone_items, relevant
from app.state.catalogue import CatalogueView


def rank_by_counters(question: Question, view: CatalogueView, counters: Counters) -> RankedList:
    """The first `k` items by their weights while no model is live; what the counters lack follows with weight 0.

    `view` is a catalogue without a model: it knows the items that were added live, so that only these have attributes
    and pass a filter. There is nothing by which the list could be made diverse.

    Args:
        question: of whom, and what is asked.
        view: see above.
        counters: the store's own.

    Raises:
        InvalidRequest: a filter does not fit the catalogue.
    """
    request = question.request
    events = question.events if request.history is None else relevant(request.history, question.event_types)
    mask_V = None if request.filter is None else view.mask(request.filter, pointer="/filter")
    candidates = None if request.candidates is None else frozenset(request.candidates)
    strategy = request.strategy or "popular"
    weights, _ = weigh(strategy, counters, lambda _: 0.0)
    for place, each in enumerate(request.boosts):
        boosted_V = view.mask(each.filter, pointer=f"/boosts/{place}/filter")
        for item_id in weights:
            index = view.index_of(item_id)
            if index is not None and boosted_V[index]:
                weights[item_id] *= each.factor

    def may_come(item_id: str) -> bool:
        if item_id in request.exclude_items or (candidates is not None and item_id not in candidates):
            return False
        index = view.index_of(item_id)
        return mask_V is None if index is None else not view.hidden[index] and (mask_V is None or bool(mask_V[index]))

    pins = {pin.position: pin.item_id for pin in request.pins if may_come(pin.item_id)}
    passed = gone_items(events, question.event_types, exclude_seen=bool(request.exclude_seen))
    passed.update(pins.values())
    by_weight = sorted(weights, key=lambda item_id: -weights[item_id])
    uncounted = (view.id_of(index) for index in range(1, view.num_items + 1))
    eligible = (
        item_id
        for item_id in chain(by_weight, (item_id for item_id in uncounted if item_id not in weights))
        if item_id not in passed and may_come(item_id)
    )
    ranked = place_pins(list(islice(eligible, request.k)), pins, request.k)
    reasons = [Reason.NO_MODEL] if request.strategy is None else []
    if question.store_failed or not counters.is_known:
        reasons.insert(0, Reason.STORE_UNAVAILABLE)
    if any(item_id not in weights and view.index_of(item_id) is None for item_id in candidates or ()):
        reasons.append(Reason.UNKNOWN_CANDIDATES)
    if len(pins) < len(request.pins):
        reasons.append(Reason.PIN_LEFT_OUT)
    items = [(item_id, weights.get(item_id, 0.0)) for item_id in ranked]
    return RankedList(request, strategy, tuple(reasons), len(events), items)
