"""From a plan to the items that are shown: ranked by the model or by popularity, then reranked.

Shapes: V catalogue with padding, P pool.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.errors import RequestError
from app.ranking.batching import rank_all
from app.ranking.ranker import Ranking
from app.ranking.rerank import attribute_similarity, cosine_similarity, diversify, place_pins, top_k
from app.recommender.counters import rank_by_counters
from app.recommender.plan import Plan, make_plan
from app.recommender.requests import Question, RankedList
from app.state.catalogue import CatalogueView


def rank_each(
    questions: Sequence[Question],
    live: LiveModel | None,
    view: CatalogueView,
    counted: Sequence[tuple[str, float]] | None,
) -> list[RankedList | RequestError]:
    """The list for each question, or why there is none; at most one run of the model for all of them.

    `counted` are the store's own counters, which nobody needs while a model is live.
    """
    outcomes: dict[int, RankedList | RequestError] = {}
    plans: dict[int, Plan] = {}
    for place, question in enumerate(questions):
        try:
            if live is None:
                outcomes[place] = rank_by_counters(question, view, counted)
            else:
                plans[place] = make_plan(question, live, view)
        except RequestError as error:
            outcomes[place] = error
    by_model = {place: plan for place, plan in plans.items() if plan.strategy == "model"}
    if live is not None and by_model:
        rankings = rank_all(live.ranker, [plan.query for plan in by_model.values()])
        for (place, plan), ranking in zip(by_model.items(), rankings, strict=True):
            outcomes[place] = listed(plan, ranking)
    for place, plan in plans.items():
        if plan.strategy == "popular":
            outcomes[place] = listed(plan, popularity(plan))
    return [outcomes[place] for place in range(len(questions))]


def popularity(plan: Plan) -> Ranking:
    """By the artifact's own counts, multiplied by the boosts' factors; ties by item index."""
    counts_V = plan.live.popularity
    if plan.adjust_V is None:
        best = plan.live.popular_items[: plan.num_ranked + len(plan.hidden)]
        indices = np.array([index for index in best if index not in plan.hidden], dtype=np.int64)[: plan.num_ranked]
        if len(indices) == plan.num_ranked or plan.view.num_items == plan.view.num_model_items:
            return Ranking(indices, counts_V[indices].astype(np.float32))
    weights_V = np.zeros(plan.view.num_items + 1, dtype=np.float64)
    weights_V[: len(counts_V)] = counts_V
    if plan.adjust_V is not None:
        weights_V *= np.exp(plan.adjust_V)
        weights_V[plan.adjust_V == -np.inf] = -np.inf
    weights_V[[0, *plan.hidden]] = -np.inf
    indices = top_k(weights_V, plan.num_ranked)
    return Ranking(indices, weights_V[indices].astype(np.float32))


def listed(plan: Plan, ranking: Ranking) -> RankedList:
    """The first `k` items after diversity and pins."""
    request = plan.request
    indices, scores = ranking.item_indices, ranking.scores
    if request.diversity > 0 and len(indices) > 1:
        order = diversify(scores, _similarity(plan, indices), request.diversity, request.k)
        indices, scores = indices[order], scores[order]
    ranked = list(zip(indices.tolist(), scores.tolist(), strict=True))
    if plan.pins:
        ranked = place_pins(ranked, _scored_pins(plan), request.k)
    id_of = plan.view.id_of
    items = [(id_of(index), score) for index, score in ranked[: request.k]]
    return RankedList(request, plan.strategy, plan.reasons, plan.num_events, items)


def _scored_pins(plan: Plan) -> dict[int, tuple[int, float]]:
    """Item index and score by position; NaN for an item that was added live and that the model cannot score."""
    ranker, counts_V = plan.live.ranker, plan.live.popularity
    if plan.strategy == "popular":
        score_of = {index: float(counts_V[index]) for index in plan.pins.values() if index < len(counts_V)}
        return {position: (index, score_of.get(index, 0.0)) for position, index in plan.pins.items()}
    known = [index for index in plan.pins.values() if index <= ranker.num_items]
    scores_C = ranker.score([plan.sequence], np.array(known, dtype=np.int64))[0] if known else ()
    score_of = dict(zip(known, map(float, scores_C), strict=True))
    return {position: (index, score_of.get(index, np.nan)) for position, index in plan.pins.items()}


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
