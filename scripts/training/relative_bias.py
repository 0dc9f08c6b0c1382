"""What attention may know of two events besides what they are: how many steps and how much time lie between them.

Each pair's attention score gets a learnt number per head for the steps between the two, and one for the time. Times
fall into buckets whose width grows with them, two for every doubling from a second to more than a hundred years, so
that minutes of a session and years of a life are told apart alike. Only intervals within the history count, never a
date.

Shapes: B batch, Q positions that look, L positions that are looked at, H heads.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

NUM_BUCKETS = 64
BUCKETS_PER_DOUBLING = 2


class Relations(NamedTuple):
    """Between the positions that look and those that are looked at.

    steps    int64 (1 or B, Q, L), 0 or more; of a position that comes later, 0
    buckets  int64 (B, Q, L) of the time between, see `time_buckets`; None where times are not known
    """

    steps: Tensor
    buckets: Tensor | None


class RelativeBias(nn.Module):
    """One block's numbers; they begin at zero."""

    def __init__(self, num_heads: int, max_length: int, *, with_steps: bool, with_times: bool) -> None:
        super().__init__()
        self.by_step = nn.Parameter(torch.zeros(max_length, num_heads)) if with_steps else None
        self.by_bucket = nn.Parameter(torch.zeros(NUM_BUCKETS, num_heads)) if with_times else None

    def forward(self, relations: Relations) -> Tensor:
        """(1 or B, H, Q, L): what is added to the attention scores."""
        bias = torch.zeros((), device=relations.steps.device)
        if self.by_step is not None:
            bias = bias + self.by_step[relations.steps]
        if self.by_bucket is not None:
            if relations.buckets is None:
                raise ValueError("this model reads timestamps; the context has none")
            bias = bias + self.by_bucket[relations.buckets]
        return bias.movedim(-1, 1)


def time_buckets(looking_ms_BQ: Tensor, looked_at_ms_BL: Tensor) -> Tensor:
    """(B, Q, L): ⌊2 log₂(seconds + 1.25)⌋ of the time from the second to the first, at most 63; nothing is negative.

    The odd addend keeps whole seconds off the borders of the buckets, where two libraries might round differently.
    """
    passed_ms = (looking_ms_BQ[:, :, None] - looked_at_ms_BL[:, None, :]).clamp(min=0)
    seconds = passed_ms.to(torch.float32) / 1000
    buckets = torch.log(seconds + 1.25) * (BUCKETS_PER_DOUBLING / math.log(2))
    return buckets.to(torch.int64).clamp(max=NUM_BUCKETS - 1)
