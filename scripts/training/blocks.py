"""The blocks of the recommender: causal self-attention and a feed-forward layer, each normalised before it reads.

Two kinds of layer: `prenorm` adds what each part gives to what it read; `ligr` (Borisyuk et al., "LiGR", 2025; as in
eSASRec, RecSys 2025) lets a gate of what it read decide how much of it is added, and its feed-forward layer is gated
too (SwiGLU, Shazeer, 2020).

Shapes: B batch, L length, D embedding, H heads.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.training.relative_bias import Relations, RelativeBias

Layer = Literal["prenorm", "ligr"]


class Attention(nn.Module):
    """Multi-head self-attention; a bias, or dropout of its weights in training, takes it out of the fused kernel."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor, bias_BHLL: Tensor | None = None) -> Tensor:
        """Every position looks at itself and at those before it; the bias is added to its scores."""
        key, value = self.key_value(x_BLD).chunk(2, dim=-1)
        heads = self._heads(self.query(x_BLD)), self._heads(key), self._heads(value)
        dropout = self.dropout if self.training else 0.0
        if bias_BHLL is None:
            return self._merged(F.scaled_dot_product_attention(*heads, is_causal=True, dropout_p=dropout))
        column_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        causal_BHLL = bias_BHLL.masked_fill(column_L > column_L[:, None], -math.inf)
        return self._merged(_biased_attention(*heads, causal_BHLL, dropout))

    def at_last(self, x_BLD: Tensor, last_B1D: Tensor, visible_BL: Tensor, bias_BH1L: Tensor | None = None) -> Tensor:
        """(B, 1, D): one position, given in `last_B1D`, looks at all columns that `visible_BL` marks; never dropped."""
        key, value = self.key_value(x_BLD).chunk(2, dim=-1)
        heads = self._heads(self.query(last_B1D)), self._heads(key), self._heads(value)
        mask_B11L = visible_BL[:, None, None, :]
        if bias_BH1L is None:
            return self._merged(F.scaled_dot_product_attention(*heads, attn_mask=mask_B11L))
        return self._merged(_biased_attention(*heads, bias_BH1L.masked_fill(~mask_B11L, -math.inf), 0.0))

    def _heads(self, x_BLD: Tensor) -> Tensor:
        batch, length, dim = x_BLD.shape
        return x_BLD.view(batch, length, self.num_heads, dim // self.num_heads).transpose(1, 2)  # (B, H, L, D / H)

    def _merged(self, x_BHLd: Tensor) -> Tensor:
        merged: Tensor = self.output(x_BHLd.transpose(1, 2).flatten(-2))
        return merged


def _biased_attention(
    query_BHQd: Tensor, key_BHLd: Tensor, value_BHLd: Tensor, bias_BHQL: Tensor, dropout: float
) -> Tensor:
    """Step by step: torch's fused kernel has no gradient for the bias, and the exporter no form of it."""
    scores_BHQL = query_BHQd @ key_BHLd.transpose(-2, -1) / math.sqrt(query_BHQd.shape[-1])
    weights_BHQL = (scores_BHQL + bias_BHQL).softmax(dim=-1)
    mixed_BHQd: Tensor = (F.dropout(weights_BHQL, dropout) if dropout else weights_BHQL) @ value_BHLd
    return mixed_BHQd


class FeedForward(nn.Module):
    """Two layers with a GELU between, or with `gated` a SwiGLU: W₂ (silu(W₁ x) · W₃ x)."""

    def __init__(self, dim: int, width: int, *, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.wide = nn.Linear(dim, 2 * width if gated else width)
        self.narrow = nn.Linear(width, dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        if self.gated:
            gate, value = self.wide(x_BLD).chunk(2, dim=-1)
            activated = F.silu(gate) * value
        else:
            activated = F.gelu(self.wide(x_BLD))
        transformed_BLD: Tensor = self.narrow(activated)
        return transformed_BLD


class Block(nn.Module):
    """One layer; `bias` is what attention knows of pairs of events."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        layer: Layer,
        expansion: int,
        dropout: float,
        attention_dropout: float,
        bias: RelativeBias | None = None,
    ) -> None:
        """expansion: width of the feed-forward layer in multiples of `dim`."""
        super().__init__()
        self.bias = bias
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, expansion * dim, gated=layer == "ligr")
        self.attention_gate = nn.Linear(dim, dim) if layer == "ligr" else None
        self.feed_forward_gate = nn.Linear(dim, dim) if layer == "ligr" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, relations: Relations | None) -> Tensor:
        """`relations` are those between all positions; None where there is no bias."""
        bias_BHLL = None if self.bias is None else self.bias(relations)
        attended_BLD = self.attention(self.attention_norm(x_BLD), bias_BHLL)
        return self._transformed(x_BLD, attended_BLD)

    def at_last(self, x_BLD: Tensor, last_B: Tensor, visible_BL: Tensor, relations: Relations | None) -> Tensor:
        """(B, 1, D): what `forward` gives at column `last_B`, computed for that column only; `relations` are those
        between it and all columns."""
        h_BLD = self.attention_norm(x_BLD)
        bias_BH1L = None if self.bias is None else self.bias(relations)
        attended_B1D = self.attention.at_last(h_BLD, at_column(h_BLD, last_B), visible_BL, bias_BH1L)
        return self._transformed(at_column(x_BLD, last_B), attended_B1D)

    def _transformed(self, x_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        x_BLD = self._added(x_BLD, attended_BLD, self.attention_gate)
        return self._added(x_BLD, self.feed_forward(self.feed_forward_norm(x_BLD)), self.feed_forward_gate)

    def _added(self, x_BLD: Tensor, change_BLD: Tensor, gate: nn.Linear | None) -> Tensor:
        change_BLD = self.dropout(change_BLD)
        return x_BLD + (change_BLD if gate is None else change_BLD * gate(x_BLD).sigmoid())


def at_column(x_BLD: Tensor, column_B: Tensor) -> Tensor:
    """(B, 1, D): one column of each row."""
    return x_BLD.gather(1, column_B[:, None, None].expand(-1, 1, x_BLD.shape[-1]))
