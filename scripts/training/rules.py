"""Item-to-item rules: which items does an item speak for? Counted in seconds, without training.

    weight(a → b) = (after(a, b) · rare_b + 30 / (n_a + 30) · before(a, b) / 2 · rare_b + 40 · alike(a, b)) / (n_a + 30)

`after` sums k^−¾ over all places where b comes k ≤ 20 events after a: sequential rules, after Ludewig and Jannach,
"Evaluation of session-based recommendation algorithms" (2018). `before` is the same the other way round, and `alike`
the share of a's likeness in attributes that falls on b (`alike` over all b sums to 1, or to 0). n are the events of an
item in the training part, rare_b = (1 + n_b / 100)^−¼.

So an item with many events is known by what came after it. One with few takes what came before it and what resembles
it for evidence too: the sum over b, at most about n_a / (n_a + 30) without the last term, says how sure the rules are.

The numbers were chosen once, on the validation parts of Beauty, Sports, MovieLens 1M and MovieLens latest-small
together. What was tried and left out, because it added nothing to these terms: cosines of the sets of users (item-kNN;
docs/experiments.md), random walks of two and three steps, a smaller weight for long histories.

Shapes: V catalogue with padding (row = item index, row 0 empty), N followers kept per item, P places of events.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from app.ranking.rules import BACKWARD, DISTANCE_EXPONENT, RARITY_EVENTS, RARITY_EXPONENT, SHRINKAGE, STEPS
from scripts.training.attribute_embedding import AttributeTable
from scripts.training.interactions import Interactions

LIKENESS = 40.0
LIKE_ITEMS = 100
"""Nearest items in attributes that share out `LIKENESS`."""
LIKENESS_PRODUCTS = 3 * 10**8
"""Pairs of items that attributes compare at most: beyond, the commonest values, which say least, are left out."""
ENTRIES_PER_BLOCK = 2**23
ROWS_PER_BLOCK = 2**9


@dataclass(frozen=True, eq=False)
class RuleTable:
    """The N best followers of every item, heaviest first: indices int32 (V, N), 0 where there are fewer, and weights
    float32 (V, N), 0 there."""

    items_VN: NDArray[np.int32]
    weights_VN: NDArray[np.float32]


def learn_rules(
    interactions: Interactions, num_items: int, followers: int, attributes: AttributeTable | None = None
) -> RuleTable:
    """The `followers` heaviest rules of each item, equal ones by rising index.

    Memory grows with the catalogue and the number of events, not with the catalogue's square: rows are finished one
    block of items after the other.
    """
    counts_V = interactions.item_counts(num_items).astype(np.float32)
    rarity_V = (1 + counts_V / RARITY_EVENTS) ** -RARITY_EXPONENT
    alike_AV = None if attributes is None else _unit_attributes(attributes)
    items_VN = np.zeros((num_items + 1, followers), dtype=np.int32)
    weights_VN = np.zeros((num_items + 1, followers), dtype=np.float32)
    for rows, evidence in _cooccurrences(interactions, counts_V):
        block = sp.csr_array(evidence @ sp.diags_array(rarity_V))
        if alike_AV is not None:
            block = sp.csr_array(block + LIKENESS * _likeness(alike_AV, rows))
        block = sp.csr_array(sp.diags_array(1 / (counts_V[rows] + SHRINKAGE)) @ block)
        kept = largest_of_rows(block, followers)
        row = np.repeat(np.arange(len(kept.indptr) - 1), np.diff(kept.indptr))
        column = np.arange(len(row)) - kept.indptr[row]
        items_VN[rows.start + row, column] = kept.indices
        weights_VN[rows.start + row, column] = kept.data
    return RuleTable(items_VN, weights_VN)


def _cooccurrences(interactions: Interactions, counts_V: NDArray[np.float32]) -> Iterator[tuple[slice, sp.csr_array]]:
    """`after` and the weighed `before` of all items, a block of rows at a time."""
    items_P = interactions.items
    users_P = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    by_item_P = np.argsort(items_P, kind="stable")
    starts_V = np.concatenate([[0], np.cumsum(counts_V, dtype=np.int64)])
    backward_V = BACKWARD * SHRINKAGE / (counts_V + SHRINKAGE)
    size = len(counts_V)
    start = 0
    while start < size:
        most = np.searchsorted(starts_V, starts_V[start] + ENTRIES_PER_BLOCK // (2 * STEPS), side="right") - 1
        stop = max(start + 1, min(size, start + ROWS_PER_BLOCK, int(most)))
        places = by_item_P[starts_V[start] : starts_V[stop]]
        sources = items_P[places]
        found: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []
        for step in range(1, STEPS + 1):
            weight = np.float32(step**-DISTANCE_EXPONENT)
            for other, weights in ((places + step, None), (places - step, backward_V)):
                inside = (other >= 0) & (other < len(items_P))
                inside[inside] = users_P[other[inside]] == users_P[places[inside]]
                row = sources[inside]
                value = np.full(len(row), weight) if weights is None else weight * weights[row]
                found.append((row - start, items_P[other[inside]], value.astype(np.float32)))
        row, column, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
        yield slice(start, stop), sp.csr_array((value, (row, column)), shape=(stop - start, size))
        start = stop


def _unit_attributes(attributes: AttributeTable) -> sp.csr_array:
    """(V, A): a row of length 1 per item with attributes; a value counts the more, the fewer items have it."""
    values_E, offsets = attributes.values_E.numpy(), attributes.offsets.numpy()
    size = len(offsets) - 1
    table_VA = sp.csr_array(
        (np.ones(len(values_E), np.float32), values_E, offsets), shape=(size, attributes.num_values)
    )
    frequency_A = np.bincount(values_E, minlength=attributes.num_values)
    weights_A = np.log1p((size - 1) / np.maximum(frequency_A, 1))
    rarest_first = np.argsort(frequency_A, kind="stable")
    products = np.cumsum(frequency_A[rarest_first].astype(np.int64) ** 2)
    weights_A[rarest_first[products > LIKENESS_PRODUCTS]] = 0
    weighted_VA = table_VA @ sp.diags_array(weights_A.astype(np.float32))
    weighted_VA.eliminate_zeros()
    lengths_V = np.sqrt(np.asarray(weighted_VA.multiply(weighted_VA).sum(axis=1)).ravel())
    return sp.csr_array(sp.diags_array((1 / np.maximum(lengths_V, 1e-9)).astype(np.float32)) @ weighted_VA)


def _likeness(unit_VA: sp.csr_array, rows: slice) -> sp.csr_array:
    """(rows, V): cosines with the nearest `LIKE_ITEMS` other items, divided by their sum."""
    cosines = sp.csr_array(unit_VA[rows] @ unit_VA.T)
    own = np.repeat(np.arange(rows.start, rows.stop), np.diff(cosines.indptr))
    cosines.data[own == cosines.indices] = 0
    cosines.eliminate_zeros()
    return shares_of_rows(largest_of_rows(cosines, LIKE_ITEMS))


def shares_of_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Every row divided by its sum."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_array(sp.diags_array((1 / np.maximum(sums, 1e-12)).astype(np.float32)) @ matrix)


def largest_of_rows(matrix: sp.csr_array, count: int) -> sp.csr_array:
    """The `count` largest entries of each row, stored largest first, equal ones by rising column."""
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), lengths)
    kept = np.arange(len(rows))
    if lengths.max(initial=0) > count:
        # Only what reaches the count-th value of its row is sorted: most of a long row is not.
        least = np.full(len(lengths), -np.inf, dtype=matrix.dtype)
        for row in np.flatnonzero(lengths > count):
            values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
            least[row] = np.partition(values, len(values) - count)[len(values) - count]
        kept = np.flatnonzero(matrix.data >= least[rows])
    rows = rows[kept]
    order = np.lexsort((matrix.indices[kept], -matrix.data[kept], rows))
    kept, rows = kept[order], rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept, rows = kept[rank < count], rows[rank < count]
    offsets = np.searchsorted(rows, np.arange(matrix.shape[0] + 1))
    return sp.csr_array((matrix.data[kept], matrix.indices[kept], offsets), shape=matrix.shape)
