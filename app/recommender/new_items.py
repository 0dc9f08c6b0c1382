"""Items that the live model has not learnt, for the places that a list keeps for them.

By its score such an item seldom comes first: what users did with the others is known, and of it there are only
attributes. Shown to nobody it would stay so.

Shapes: N items of the view behind the model's own.
"""

from zlib import crc32

import numpy as np

from app.ranking.rerank import top_k
from app.ranking.similar import likeness_to_history
from app.recommender.plan import Plan


def best_new_items(plan: Plan, size: int) -> list[int]:
    """Item indices of at most `size` that may come, those first that are most like what the user chose of late.

    Equal ones, and all of them for a user of whom nothing is known, come in an order drawn for the user (for the
    history, where it came with the request): so each is shown to as many as any other, and to the same ones again.
    """
    first, last = plan.view.num_model_items + 1, plan.view.num_items
    likeness_N = np.zeros(last + 1 - first, dtype=np.float32)
    vectors_VD = plan.live.ranker.item_vectors
    if vectors_VD is not None and plan.sequence.items:
        rows_ND = vectors_VD[first : last + 1]
        likeness_N[: len(rows_ND)] = likeness_to_history(rows_ND, vectors_VD[list(plan.sequence.items)])
    if plan.adjust_V is not None:
        likeness_N += plan.adjust_V[first:]
    likeness_N[[index - first for index in plan.hidden if index >= first]] = -np.inf
    request = plan.request
    of_whom = str(request.owner or [event.item_id for event in request.history or ()])
    drawn = np.random.default_rng(crc32(of_whom.encode())).permutation(len(likeness_N))
    best: list[int] = (first + drawn[top_k(likeness_N[drawn], size)]).tolist()
    return best
