"""From a plan to the items that are shown: ranked by the model or by popularity, then reranked.

Shapes: B batch, V catalogue with padding, P pool.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.artifacts.registry import LiveModel
from app.errors import RequestError
from app.ranking.ranker import Ranking
from app.ranking.rerank import attribute_similarity, cosine_similarity, diversify, place_pins, top_k
from app.recommender.counters import rank_by_counters
from app.recommender.plan import Plan, make_plan
from app.recommender.requests import Question, RankedList
from app.state.catalogue import CatalogueView

Scored = tuple[int, float]
"""Item index and score."""


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
    by_model = [plan for plan in plans.values() if plan.strategy == "model"]
    ranked_by_model = iter(rank_by_model(by_model) if by_model else ())
    for place, plan in plans.items():
        ranked = next(ranked_by_model) if plan.strategy == "model" else rank_by_counts(plan)
        items = [(view.id_of(index), score) for index, score in ranked]
        outcomes[place] = RankedList(plan.request, plan.strategy, plan.reasons, plan.num_events, items)
    return [outcomes[place] for place in range(len(questions))]


def rank_by_model(plans: Sequence[Plan]) -> list[list[Scored]]:
    """The first `k` of each plan; all have sequences and one model, which runs once."""
    ranker = plans[0].live.ranker
    num_columns = ranker.num_items + 1
    adjust_BV = None
    if any(plan.adjust_V is not None for plan in plans):
        rows = [_of_width(plan.adjust_V, num_columns) for plan in plans]
        adjust_BV = rows[0][None, :] if len(rows) == 1 else np.stack(rows)
    rankings = ranker.rank([plan.sequence for plan in plans], max(plan.num_ranked for plan in plans), adjust_BV)
    return [rerank(plan, ranking, _scores_of_pins(plan)) for plan, ranking in zip(plans, rankings, strict=True)]


def _scores_of_pins(plan: Plan) -> list[float]:
    """In the order of the pins; NaN for an item that was added live and that the model cannot score."""
    ranker = plan.live.ranker
    known = [index for index in plan.pins.values() if index <= ranker.num_items]
    if not known:
        return [np.nan] * len(plan.pins)
    (scores_C,) = ranker.score([plan.sequence], np.array(known, dtype=np.int64)).tolist()
    score_of = dict(zip(known, scores_C, strict=True))
    return [score_of.get(index, np.nan) for index in plan.pins.values()]


def _of_width(adjust_V: NDArray[np.float32] | None, num_columns: int) -> NDArray[np.float32]:
    """For the columns that the model has: of the items added live it may know fewer than the catalogue, or more."""
    if adjust_V is None:
        return np.zeros(num_columns, dtype=np.float32)
    if len(adjust_V) >= num_columns:
        return adjust_V[:num_columns]
    return np.pad(adjust_V, (0, num_columns - len(adjust_V)), constant_values=-np.inf)


def rank_by_counts(plan: Plan) -> list[Scored]:
    """The first `k` by the artifact's own counts, multiplied by the boosts' factors; ties by item index."""
    counts_V = plan.live.popularity
    if plan.adjust_V is None:
        indices = np.array(plan.live.popular_items[: plan.num_ranked], dtype=np.int64)
        scores = counts_V[indices].astype(np.float32)
    else:
        weights_V = np.zeros(len(plan.adjust_V), dtype=np.float64)
        weights_V[: len(counts_V)] = counts_V
        weights_V *= np.exp(plan.adjust_V)
        weights_V[plan.adjust_V == -np.inf] = -np.inf
        weights_V[0] = -np.inf  # padding, which a model hides by itself
        indices = top_k(weights_V, plan.num_ranked)
        scores = weights_V[indices].astype(np.float32)
    pins = [float(counts_V[index]) if index < len(counts_V) else 0.0 for index in plan.pins.values()]
    return rerank(plan, Ranking(indices, scores), pins)


def rerank(plan: Plan, ranking: Ranking, scores_of_pins: Sequence[float]) -> list[Scored]:
    """The first `k` after diversity and pins."""
    request = plan.request
    indices, scores = ranking.item_indices[: plan.num_ranked], ranking.scores[: plan.num_ranked]
    if request.diversity > 0 and len(indices) > 1:
        order = diversify(scores, _similarity(plan, indices), request.diversity, request.k)
        indices, scores = indices[order], scores[order]
    ranked = list(zip(indices.tolist(), scores.tolist(), strict=True))
    if plan.pins:
        pins = {
            position: (index, score) for (position, index), score in zip(plan.pins.items(), scores_of_pins, strict=True)
        }
        ranked = place_pins(ranked, pins, request.k)
    return ranked[: request.k]


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
