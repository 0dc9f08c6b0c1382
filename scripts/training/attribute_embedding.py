"""Vectors of attribute values, and what an item gets from those it has.

An item's share is Σ vectors / √n over its n values: the length of the sum of n vectors without relation does not
depend on n. An item without values gets zero.

Shapes: V catalogue with padding (row = item index), A attribute values, E pairs of an item and a value of it,
X any number of items, D embedding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttributeTable(NamedTuple):
    """Which item has which values: item i has `values_E[offsets[i] : offsets[i + 1]]`; offsets are V + 1 numbers.

    Both int32; `num_values` is A.
    """

    values_E: Tensor
    offsets: Tensor
    num_values: int

    @property
    def num_items(self) -> int:
        """V − 1: items without the padding."""
        return len(self.offsets) - 2


class _Bags(NamedTuple):
    """Rows with a weight for each, and where in them each bag begins: as `embedding_bag` takes them."""

    rows_E: Tensor
    starts: Tensor
    weights_E: Tensor

    def sums(self, vectors: Tensor) -> Tensor:
        return F.embedding_bag(
            self.rows_E, vectors, self.starts, mode="sum", per_sample_weights=self.weights_E.to(vectors.dtype)
        )


class _WeightedSums(torch.autograd.Function):
    """Sums of bags whose gradient is computed as sums of bags too: several times as fast as torch's own."""

    @staticmethod
    def forward(ctx: Any, vectors_AD: Tensor, values_by_owner: _Bags, owners_by_value: _Bags) -> Tensor:
        ctx.transposed = owners_by_value
        return values_by_owner.sums(vectors_AD)

    @staticmethod
    def backward(ctx: Any, gradient_XD: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.sums(gradient_XD.contiguous()), None, None


class AttributeEmbedding(nn.Module):
    """A vector per attribute value; the table of who has what is part of the state, so that weights stand alone."""

    values_E: Tensor
    offsets: Tensor

    def __init__(self, table: AttributeTable, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(table.num_values, dim)
        self.register_buffer("values_E", table.values_E)
        self.register_buffer("offsets", table.offsets)

    @property
    def table(self) -> AttributeTable:
        return AttributeTable(self.values_E, self.offsets, self.vectors.num_embeddings)

    def forward(self, items_X: Tensor) -> Tensor:
        """(X, D): the share of each of some items."""
        first_X = self.offsets[items_X]
        counts_X = self.offsets[items_X + 1] - first_X
        starts_X = counts_X.cumsum(0) - counts_X
        owners_E = torch.repeat_interleave(counts_X)
        within_E = torch.arange(len(owners_E), device=items_X.device) - starts_X[owners_E]
        values_E = self.values_E[first_X[owners_E] + within_E].long()
        weights_E = counts_X[owners_E].to(torch.float32).rsqrt()
        by_value_E = torch.argsort(values_E, stable=True)
        counts_A = torch.bincount(values_E, minlength=self.vectors.num_embeddings)
        shares_XD: Tensor = _WeightedSums.apply(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self.vectors.weight,
            _Bags(values_E, starts_X, weights_E),
            _Bags(owners_E[by_value_E], counts_A.cumsum(0) - counts_A, weights_E[by_value_E]),
        )
        return shares_XD
