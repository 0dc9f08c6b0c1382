"""From what was read to what is looked for: the last layers before a state is scored.

Shapes: B batch, L length, D embedding.
"""

from typing import Literal

from torch import Tensor, nn

Head = Literal["none", "residual"]


class PredictionHead(nn.Module):
    """Two fully connected layers whose output is added to the state; it begins as the identity.

    A state is made of the vectors of items that were read, and where these are what is scored too, it lies near items
    like them from the first step. Behind a layer of random weights that would have to be learnt again, which costs most
    where events are few (docs/experiments.md, 2026-11-30).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, dim)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(dim)
        self.last = nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        change_BLD: Tensor = self.last(self.norm(self.activation(self.first(x_BLD))))
        return x_BLD + change_BLD


def prediction_head(kind: Head, dim: int) -> nn.Module:
    return PredictionHead(dim) if kind == "residual" else nn.Identity()
