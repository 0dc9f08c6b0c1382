"""The one seam of the service: whatever turns sequences into ranked items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ItemSequence:
    """What the model reads of one history, oldest first.

    The three lists have one length. `items` holds item indices (1…num_items), `timestamps_ms` epoch milliseconds,
    `event_types` the indices that the manifest's event-type map gives. `target_type` is such an index as well: the kind
    of event that is to be predicted, where the model tells them apart; 0: any.
    """

    items: Sequence[int]
    timestamps_ms: Sequence[int]
    event_types: Sequence[int]
    target_type: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Item indices by falling score, equal scores by rising index; hidden items are not in it."""

    item_indices: NDArray[np.int64]
    scores: NDArray[np.float32]


class Ranker(Protocol):
    """Ranks the catalogue for each of a batch of sequences."""

    @property
    def num_items(self) -> int: ...

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """float32 (num_items + 1, D), read-only, row = item index; None where the ranker keeps them to itself."""
        ...

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        """The best `k` items for each sequence, in the order of the sequences; fewer where fewer are eligible.

        Args:
            sequences: at least one; the newest `max_length` events of each are read.
            k: at least 1; more than the catalogue holds means all of it.
            adjust_BV: added to the scores before top-k, float32 (len(sequences), num_items + 1); column = item index,
                −inf hides the item. None adds nothing.
        """
        ...

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 (B, C): the scores by which `rank` would rank these different items, in their order."""
        ...
