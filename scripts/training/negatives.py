"""Which items stand against the targets of a batch, and how often each was to be expected.

Shapes: T targets, N negatives, V catalogue with padding.
"""

from typing import Literal

import torch
from torch import Tensor

NegativeSource = Literal["uniform", "popularity", "batch"]


class NegativeSampler:
    """Draws negatives with repetition, one set for all targets of a batch.

    uniform     every item alike
    popularity  by number of events
    batch       targets of the batch itself, at most so many: by number of events too, and their vectors are there
                already
    """

    def __init__(self, source: NegativeSource, num_negatives: int, num_items: int, events: Tensor) -> None:
        """`events` are the items of all events that are learnt from, 1…num_items, on the device of the draws."""
        self._source = source
        self._num_negatives = num_negatives
        self._num_items = num_items
        self._events = events
        counts_V = torch.bincount(events, minlength=num_items + 1)
        if source == "uniform":
            counts_V = torch.ones_like(counts_V)
        self._log_share_V = (counts_V / counts_V[1:].sum()).log()

    def draw(self, targets_T: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) item indices; N is the number asked for, with `batch` at most T."""
        device = generator.device
        if self._source == "batch":
            chosen = torch.randperm(len(targets_T), generator=generator, device=device)[: self._num_negatives]
            return targets_T[chosen]
        if self._source == "popularity":
            chosen = torch.randint(len(self._events), (self._num_negatives,), generator=generator, device=device)
            return self._events[chosen].long()
        return torch.randint(1, self._num_items + 1, (self._num_negatives,), generator=generator, device=device)

    def corrections(self, negatives_N: Tensor) -> Tensor:
        """(N,): −log of how often each item was to be expected among the negatives: see `sampled_softmax`."""
        expected_N: Tensor = self._log_share_V[negatives_N] + torch.tensor(float(len(negatives_N))).log()
        return -expected_N
