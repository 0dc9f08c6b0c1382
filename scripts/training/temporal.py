"""Temporal modules: what the sequence passes through after attention, always with a residual path.

Attention weighs the past as a set that carries positions; a convolution sees the last few steps as a pattern, a
recurrent unit carries a state along the whole sequence. Both are causal: the output at a position depends on nothing
after it, so padding on the right changes nothing.

Shapes: B batch, L length, D embedding.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Temporal = Literal["none", "conv", "gru"]


class CausalConvolution(nn.Module):
    """Depthwise convolutions over a position and those before it, one filter per dimension and per kernel size.

    Each size has its activation to itself (without it their sum would be no more than the widest of them); their sum is
    divided by the root of their number.
    """

    def __init__(self, dim: int, kernel_sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, size, groups=dim) for size in kernel_sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        h_BLD = self.norm(x_BLD)
        mixed_BLD = sum(F.gelu(_convolved(h_BLD, each)) for each in self.convolutions) / len(self.convolutions) ** 0.5
        dropped_BLD: Tensor = self.dropout(mixed_BLD)
        return x_BLD + dropped_BLD


def _convolved(h_BLD: Tensor, convolution: nn.Module) -> Tensor:
    assert isinstance(convolution, nn.Conv1d)  # noqa: S101 - ModuleList forgets the type of what it holds
    padded_BLD = F.pad(h_BLD, (0, 0, convolution.kernel_size[0] - 1, 0))
    # cuDNN prepares half a second for every shape that it has not met, and batches come in hundreds of them.
    return (
        summed_windows(padded_BLD, convolution)
        if h_BLD.device.type == "cuda"
        else convolved_lines(padded_BLD, convolution)
    )


def summed_windows(padded_BLD: Tensor, convolution: nn.Conv1d) -> Tensor:
    """The depthwise convolution as it is written down: every window times the filter, summed. Takes the memory of as
    many copies of the sequence as the filter has steps, and stays in float32 under autocast."""
    assert convolution.bias is not None  # noqa: S101 - they all have one
    windows_BLDK = padded_BLD.unfold(1, convolution.kernel_size[0], 1)
    return (windows_BLDK * convolution.weight.squeeze(1)).sum(dim=-1) + convolution.bias


def convolved_lines(padded_BLD: Tensor, convolution: nn.Conv1d) -> Tensor:
    """The same by torch's own kernel, and as it is exported."""
    # As an image of one line whose channels lie next to one another: three times as fast as conv1d of the transposed.
    lines_BD1L = padded_BLD.transpose(1, 2).unsqueeze(2)
    convolved_BD1L = F.conv2d(lines_BD1L, convolution.weight.unsqueeze(2), convolution.bias, groups=convolution.groups)
    return convolved_BD1L.squeeze(2).transpose(1, 2)


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


def temporal_module(kind: Temporal, *, dim: int, kernel_sizes: Sequence[int], dropout: float) -> nn.Module | None:
    """None where the sequence goes on as it is."""
    if kind == "conv":
        return CausalConvolution(dim, kernel_sizes, dropout)
    if kind == "gru":
        return RecurrentUnit(dim, dropout)
    return None
