"""Temporal modules: what the attended sequence passes through before the head, always with a residual path.

Attention weighs the past as a set that carries positions; a convolution sees the last few steps as a pattern, a
recurrent unit carries a state along the whole sequence. Both are causal: the output at a position depends on nothing
after it, so padding on the right changes nothing.

Shapes: B batch, L length, D embedding.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Temporal = Literal["none", "conv", "gru"]


class CausalConvolution(nn.Module):
    """Depthwise 1-D convolution over the position and the `kernel_size - 1` before it, one filter per dimension."""

    def __init__(self, dim: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.convolution = nn.Conv1d(dim, dim, kernel_size, groups=dim)
        self.dropout = nn.Dropout(dropout)
        self.reach = kernel_size - 1

    def forward(self, x_BLD: Tensor) -> Tensor:
        h_BDL = F.pad(self.norm(x_BLD).transpose(1, 2), (self.reach, 0))
        h_BLD = self.convolution(h_BDL).transpose(1, 2)
        mixed_BLD: Tensor = self.dropout(F.gelu(h_BLD))
        return x_BLD + mixed_BLD


class RecurrentUnit(nn.Module):
    """A gated recurrent unit over the sequence, its state as wide as the embedding."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        h_BLD, _ = self.gru(self.norm(x_BLD))
        mixed_BLD: Tensor = self.dropout(h_BLD)
        return x_BLD + mixed_BLD


def temporal_module(kind: Temporal, *, dim: int, kernel_size: int, dropout: float) -> nn.Module | None:
    """None where the attended sequence goes to the head as it is."""
    if kind == "conv":
        return CausalConvolution(dim, kernel_size, dropout)
    if kind == "gru":
        return RecurrentUnit(dim, dropout)
    return None
