"""Items like others: by the direction of the vectors that a model has learnt for them.

Shapes: V catalogue with padding (row = item index), D embedding, L length, N items.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import Ranker

ITEMS_READ = 20


def likeness_to_history(vectors_ND: NDArray[np.float32], history_LD: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N,): Σ 1/j · the cosine of each vector and that of the j-th newest item, over the newest 20.

    A profile of what the user chose, as content-based filtering has it: it tells items apart of which there is nothing
    but their attributes. A vector of zeros is like nothing.

    Args:
        vectors_ND: of the items.
        history_LD: oldest first.
    """
    newest_LD = _units(history_LD[-ITEMS_READ:][::-1])
    profile_D = (newest_LD / np.arange(1, len(newest_LD) + 1, dtype=np.float32)[:, None]).sum(axis=0)
    likeness_N: NDArray[np.float32] = _units(vectors_ND) @ profile_D
    return likeness_N


def _units(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths_N = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))
    units_ND: NDArray[np.float32] = vectors_ND / np.maximum(lengths_N, np.finfo(np.float32).tiny)[:, None]
    return units_ND


class SimilarItems:
    """Remembers the lengths of a ranker's vectors as long as the ranker lives."""

    def __init__(self) -> None:
        self._lengths: WeakKeyDictionary[Ranker, NDArray[np.float32]] = WeakKeyDictionary()

    def likeness(self, ranker: Ranker, item_indices: Sequence[int]) -> NDArray[np.float32] | None:
        """float32 (V,): (1 + cosine) / 2 of each item's vector and the mean direction of the given items, so 0…1.

        −inf for an item without a vector (one of zeros) and for the padding. None where none of the given items has a
        vector, or their directions cancel out.
        """
        vectors_VD = ranker.item_vectors
        if vectors_VD is None:
            return None
        lengths_V = self._lengths_of(ranker, vectors_VD)
        known = [index for index in item_indices if index < len(lengths_V) and lengths_V[index] > 0]
        if not known:
            return None
        direction_D = (vectors_VD[known] / lengths_V[known, None]).mean(axis=0)
        length = float(np.linalg.norm(direction_D))
        if length < np.finfo(np.float32).eps:
            return None
        has_vector_V = lengths_V > 0
        cosine_V = np.zeros(len(lengths_V), dtype=np.float32)
        np.divide(vectors_VD @ (direction_D / length), lengths_V, out=cosine_V, where=has_vector_V)
        likeness_V = (1 + np.clip(cosine_V, -1, 1)) / np.float32(2)
        likeness_V[~has_vector_V] = -np.inf
        return likeness_V

    def _lengths_of(self, ranker: Ranker, vectors_VD: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths_V = self._lengths.get(ranker)
        if lengths_V is None:
            lengths_V = np.sqrt(np.einsum("vd,vd->v", vectors_VD, vectors_VD))
            lengths_V[0] = 0
            self._lengths[ranker] = lengths_V
        return lengths_V
