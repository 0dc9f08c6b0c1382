"""What a request changes about a ranking: boosts before top-k, diversity and pins after it. Pure functions.

Shapes: V catalogue with padding, P pool (ranked items to choose from), D embedding, T attribute values.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def boost(adjust_V: NDArray[np.float32], mask_V: NDArray[np.bool_], factor: float) -> None:
    """Multiply the odds of the items in the mask by `factor` > 0, in place.

    Scores are logarithms of probabilities (up to a constant of the history), so a factor adds its logarithm; several
    boosts of one item multiply. A hidden item (−inf) stays hidden.
    """
    np.add(adjust_V, np.float32(math.log(factor)), out=adjust_V, where=mask_V)


def popularity_discount(item_counts_V: NDArray[np.int64], strength: float) -> NDArray[np.float32]:
    """float32 (V,): what popularity takes from each item's score, −strength · ln(1 + its events).

    Logit adjustment (Menon et al., ICLR 2021) after training: with strength 1 items are ranked by how much likelier
    they are here than anywhere, with 0 by how likely they are.
    """
    discount_V: NDArray[np.float32] = (-strength * np.log1p(item_counts_V)).astype(np.float32)
    return discount_V


def top_k(scores_V: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """The item indices of the `k` largest scores, by falling score, equal ones by rising index; −inf never comes.

    >>> top_k(np.array([-np.inf, 1, 3, 3, -np.inf], np.float32), 2).tolist()
    [2, 3]
    """
    eligible = np.flatnonzero(scores_V != -np.inf)
    if len(eligible) > k:
        scores = scores_V[eligible]
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, equal = eligible[scores > threshold], eligible[scores == threshold]
        eligible = np.concatenate([above, equal[: k - len(above)]])
    order = np.lexsort((eligible, -scores_V[eligible]))
    return eligible[order]


def diversify(
    scores_P: NDArray[np.float32], similarity_PP: NDArray[np.float32], diversity: float, size: int
) -> list[int]:
    """Places in the pool in their new order, at most `size` of them: maximal marginal relevance.

    Each step takes the item with the largest

        (1 − diversity) · relevance − diversity · (its largest similarity to an item taken before)

    and of equal ones the earlier in the pool; relevance is the score scaled to 0…1 within the pool. 0 keeps the pool's
    order, 1 spreads as far as the pool allows, always from its first item on. (Carbonell and Goldstein, SIGIR 1998.)

    Args:
        scores_P: by falling score, finite.
        similarity_PP: symmetric, within 0…1.
        diversity: 0…1.
        size: at least 1.
    """
    lowest, highest = float(scores_P[-1]), float(scores_P[0])
    relevance_P = (scores_P - lowest) / (highest - lowest) if highest > lowest else np.ones_like(scores_P)
    nearest_P = np.zeros(len(scores_P), dtype=np.float32)
    is_taken_P = np.zeros(len(scores_P), dtype=np.bool_)
    order: list[int] = []
    while len(order) < min(size, len(scores_P)):
        worth_P = (1 - diversity) * relevance_P - diversity * nearest_P
        worth_P[is_taken_P] = -np.inf
        best = int(np.argmax(worth_P)) if order else 0
        order.append(best)
        is_taken_P[best] = True
        np.maximum(nearest_P, similarity_PP[best], out=nearest_P)
    return order


def cosine_similarity(vectors_PD: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (P, P) within 0…1: the cosine of every two vectors, 0 where they point away from each other."""
    lengths_P1 = np.linalg.norm(vectors_PD, axis=1, keepdims=True)
    units_PD = vectors_PD / np.maximum(lengths_P1, np.finfo(np.float32).tiny)
    similarity_PP: NDArray[np.float32] = np.clip(units_PD @ units_PD.T, 0.0, 1.0)
    return similarity_PP


def attribute_similarity(attributes: Sequence[Mapping[str, Any]]) -> NDArray[np.float32] | None:
    """float32 (P, P) within 0…1: what two items have in common of all that either has (Jaccard).

    Compared are texts and lists of texts. A value of one item alone (a title) and one of all of them (a shop's name)
    say nothing of their likeness and are left out; so are numbers, which are near or far rather than the same. None
    where nothing is left to compare.
    """
    values = [_values(item) for item in attributes]
    counts = Counter(value for item in values for value in item)
    columns = {value: column for column, value in enumerate(v for v, n in counts.items() if 1 < n < len(attributes))}
    if not columns:
        return None
    has_PT = np.zeros((len(values), len(columns)), dtype=np.float32)
    for place, item in enumerate(values):
        has_PT[place, [columns[value] for value in item if value in columns]] = 1.0
    common_PP = has_PT @ has_PT.T
    sizes_P = has_PT.sum(axis=1)
    either_PP = sizes_P[:, None] + sizes_P[None, :] - common_PP
    similarity_PP: NDArray[np.float32] = common_PP / np.maximum(either_PP, 1.0)
    return similarity_PP


def _values(item: Mapping[str, Any]) -> set[tuple[str, str]]:
    """
    >>> sorted(_values({"genres": ["Drama", "War"], "country": "fr", "year": 1990}))
    [('country', 'fr'), ('genres', 'Drama'), ('genres', 'War')]
    """
    found = set()
    for field, value in item.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str):
                found.add((field, part))
    return found


def keep_places(ranked: Sequence[int], new: Sequence[int], first_new: int, share: float, size: int) -> list[int]:
    """The ranking, at most `size` of it, with as many new items brought in or forward as it takes to have at least
    ⌊share · n⌋ of them among the first n, for every n; fewer where `new` has no more.

    Ranked group fairness with a fixed quota (Zehlike et al., CIKM 2017). A new item that is ranked high enough by
    itself takes a place of the quota.

    Args:
        ranked: item indices, the best first.
        new: those of `first_new` and above that are to be brought in, the best first.
        first_new: item indices from here on are new.
        share: 0…1.
        size: at least 1.

    >>> keep_places([1, 2, 3, 4], [9, 8], 8, 0.5, 4)
    [1, 9, 2, 8]
    >>> keep_places([8, 1, 2, 3], [9, 8], 8, 0.5, 4)
    [8, 1, 2, 9]
    """
    placed: dict[int, None] = {}
    by_rank, to_bring = iter(ranked), iter(new)
    num_new = 0
    while len(placed) < size:
        is_due = num_new < int(share * (len(placed) + 1) + 1e-9)  # 0.29 · 100 is a little less than 29
        index = next((each for each in to_bring if each not in placed), None) if is_due else None
        if index is None:
            index = next((each for each in by_rank if each not in placed), None)
        if index is None:
            break
        placed[index] = None
        num_new += index >= first_new
    return list(placed)


def place_pins(ranked: Sequence[T], pins: Mapping[int, T], size: int) -> list[T]:
    """The ranking with every pin at its position (from 1) and the others around them in their order, at most `size`.

    A pin beyond the end comes last. `ranked` must not hold what is pinned.

    >>> place_pins(["a", "b", "c"], {1: "x", 3: "y"}, 4)
    ['x', 'a', 'y', 'b']
    >>> place_pins(["a"], {9: "x"}, 4)
    ['a', 'x']
    """
    placed = list(ranked)
    for position in sorted(pins):
        placed.insert(position - 1, pins[position])
    return placed[:size]
