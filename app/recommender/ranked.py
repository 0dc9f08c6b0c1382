"""From a plan to the items that are shown: ranked by the model, by popularity or by likeness, then reranked.

Shapes: V catalogue with padding, P pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.errors import RequestError
from app.ranking.batching import MAX_SCORES, rank_all
from app.ranking.calibration import NORMALISER_ITEMS, log_shares, probabilities
from app.ranking.explanation import contributions
from app.ranking.ranker import Ranking
from app.ranking.rerank import attribute_similarity, cosine_similarity, diversify, keep_places, place_pins
from app.recommender.counters import rank_by_counters
from app.recommender.new_items import best_new_items
from app.recommender.plan import Plan, make_plan
from app.recommender.popular import Counters, KeptWeights, Weights, rank_by_weights, rank_popular
from app.recommender.requests import Contribution, Question, RankedList, Reason, Strategy
from app.state.catalogue import CatalogueView

NUM_COMPARED = 200
"""Popular items that an explanation compares the recommended ones with."""


def rank_each(
    questions: Sequence[Question],
    live: LiveModel | None,
    view: CatalogueView,
    counters: Counters,
    kept: KeptWeights,
) -> list[RankedList | RequestError]:
    """The list for each question, or why there is none; at most two runs of the model for all of them.

    Those that restrict or boost items are ranked apart: one such query makes a ranker score every item in its run.
    """
    outcomes: dict[int, RankedList | RequestError] = {}
    plans: dict[int, Plan] = {}
    for place, question in enumerate(questions):
        try:
            if live is None:
                outcomes[place] = rank_by_counters(question, view, counters)
            else:
                plans[place] = make_plan(question, live, view)
        except RequestError as error:
            outcomes[place] = error
    by_model: dict[bool, list[int]] = {False: [], True: []}
    for place, plan in plans.items():
        if plan.strategy == "model":
            by_model[plan.adjust_V is not None].append(place)
        else:
            outcomes[place] = listed_by_weights(plan, kept.of(plan.strategy, counters, plan.live, view))
    for places in filter(None, by_model.values()):
        rankings = rank_all(plans[places[0]].live.ranker, [plans[place].query for place in places])
        for place, ranking in zip(places, rankings, strict=True):
            outcomes[place] = listed_by_model(plans[place], ranking)
    return [outcomes[place] for place in range(len(questions))]


def listed_by_model(plan: Plan, ranking: Ranking) -> RankedList:
    """From what the model answers to the plan's query. A pin's score is NaN where the model cannot score the item."""
    ranker = plan.live.ranker
    known = [index for index in plan.pins.values() if index <= ranker.num_items]
    scores_C = ranker.score([plan.sequence], np.array(known, dtype=np.int64))[0] if known else np.empty(0, np.float32)
    # Without pins nothing is scored, and no row as wide as the catalogue need be made.
    discount_V = plan.discount if known else None
    if discount_V is not None:
        scores_C = scores_C + discount_V[known]
    score_of = dict(zip(known, map(float, scores_C), strict=True))
    return _listed(plan, plan.strategy, ranking, lambda index: score_of.get(index, np.nan))


def explained(plan: Plan, ranked: RankedList) -> RankedList:
    """The list with what each event that the model read did for each item; nothing for one that it cannot score.

    Items are compared with the most popular ones, whatever the request restricts.
    """
    ranker, sequence, view = plan.live.ranker, plan.sequence, plan.view
    index_of = {item_id: view.index_of(item_id) for item_id, _ in ranked.items}
    places = {index: place for place, index in enumerate(i for i in index_of.values() if i and i <= ranker.num_items)}
    events = [
        (view.id_of(index), timestamp_ms or None)
        for index, timestamp_ms in zip(sequence.items, sequence.timestamps_ms, strict=True)
    ]
    others = plan.live.popular_items[:NUM_COMPARED].tolist()
    max_rows = max(1, MAX_SCORES // (ranker.num_items + 1))
    lost_LC = contributions(ranker, sequence, list(places), others, max_rows=max_rows) if places else None

    def because(item_id: str) -> tuple[Contribution, ...]:
        place = places.get(index_of[item_id] or 0)
        if lost_LC is None or place is None:
            return ()
        lost_L = lost_LC[:, place].tolist()
        order = sorted(range(len(lost_L)), key=lambda event: (-lost_L[event], -event))  # of equal ones the newest first
        return tuple(Contribution(*events[event], lost_L[event]) for event in order)

    return replace(ranked, because=[because(item_id) for item_id, _ in ranked.items])


def with_probabilities(plan: Plan, ranked: RankedList) -> RankedList:
    """The list with the calibrated probability of each item that the model can score, where the artifact can say it.

    It is the model's for the history as it stands: no filter, boost, discount or diversity changes it.
    """
    calibration, ranker = plan.live.manifest.calibration, plan.live.ranker
    if calibration is None:
        return ranked
    indices = [plan.view.index_of(item_id) or 0 for item_id, _ in ranked.items]
    known = [index for index in indices if 0 < index <= ranker.num_items]
    if not known:
        return ranked
    best_N = ranker.rank([plan.sequence], NORMALISER_ITEMS)[0].scores
    shares_C = log_shares(ranker.score([plan.sequence], np.array(known, dtype=np.int64))[0], best_N)
    found = dict(zip(known, probabilities(shares_C, calibration.slope, calibration.intercept).tolist(), strict=True))
    return replace(ranked, probabilities=[found.get(index) for index in indices])


def listed_by_weights(plan: Plan, weights: Weights) -> RankedList:
    """By what many users choose."""
    ranked = _listed(plan, plan.strategy, rank_popular(plan, weights), weights.of)
    if weights.is_known or Reason.STORE_UNAVAILABLE in ranked.reasons:
        return ranked
    return replace(ranked, reasons=(Reason.STORE_UNAVAILABLE, *ranked.reasons))


def listed_by_likeness(plan: Plan, likeness_V: NDArray[np.float32]) -> RankedList:
    """By what `SimilarItems.likeness` says of the plan's items. A pin's score is NaN where it has no vector."""

    def score_of(index: int) -> float:
        return float(likeness_V[index]) if index < len(likeness_V) and likeness_V[index] != -np.inf else np.nan

    ranked = _listed(plan, "similar", rank_by_weights(plan, likeness_V), score_of)
    reasons = tuple(reason for reason in ranked.reasons if reason is not Reason.NO_KNOWN_ITEM)  # a vector is enough
    return replace(ranked, reasons=reasons)


def _listed(plan: Plan, strategy: Strategy, ranking: Ranking, score_of_pin: Callable[[int], float]) -> RankedList:
    """The first `k` items after diversity, new items and pins."""
    request, reasons = plan.request, plan.reasons
    indices, scores = ranking.item_indices, ranking.scores
    if request.diversity > 0 and len(indices) > 1:
        order = diversify(scores, _similarity(plan, indices), request.diversity, request.k)
        indices, scores = indices[order], scores[order]
    ranked = list(zip(indices.tolist(), scores.tolist(), strict=True))
    num_new = plan.num_new
    if num_new:
        new = best_new_items(plan, num_new)
        score_of = dict(ranked)
        by_rank = list(score_of)[: plan.num_beside_pins]
        first_new = plan.view.num_model_items + 1
        kept = keep_places(by_rank, new, first_new, plan.new_item_share, plan.num_beside_pins)
        if kept != by_rank:
            ranked = [(index, score_of.get(index, np.nan)) for index in kept]
            reasons = (*reasons, Reason.NEW_ITEMS)
    if plan.pins:
        pins = {position: (index, score_of_pin(index)) for position, index in plan.pins.items()}
        ranked = place_pins(ranked, pins, request.k)
    id_of = plan.view.id_of
    items = [(id_of(index), score) for index, score in ranked[: request.k]]
    return RankedList(request, strategy, reasons, plan.num_events, items)


def _similarity(plan: Plan, indices_P: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 (P, P): of the vectors and of the attributes, the mean of both where there are both."""
    parts = [attribute_similarity([plan.view.attributes(index) for index in indices_P.tolist()])]
    vectors_VD = plan.live.ranker.item_vectors
    if vectors_VD is not None:
        vectors_PD = vectors_VD[np.where(indices_P < len(vectors_VD), indices_P, 0)]
        vectors_PD[indices_P >= len(vectors_VD)] = 0  # popularity may rank an item that the model has no vector of
        parts.append(cosine_similarity(vectors_PD))
    found = [part for part in parts if part is not None]
    if not found:
        return np.zeros((len(indices_P), len(indices_P)), dtype=np.float32)
    similarity_PP: NDArray[np.float32] = np.mean(found, axis=0, dtype=np.float32)
    return similarity_PP
