"""Blocks against their formulas, written out for one position."""

import pytest
import torch
from torch.nn import functional as F

from scripts.training.blocks import Attention, Block, Layer


def block(layer: Layer) -> Block:
    torch.manual_seed(0)
    made = Block(6, 2, layer=layer, expansion=2, dropout=0.0, attention_dropout=0.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def normal(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * norm.weight + norm.bias


def attended(x_LD: torch.Tensor, made: Block, position: int) -> torch.Tensor:
    """Two heads of three dimensions each look at the positions up to this one."""
    h = torch.stack([normal(x, made.attention_norm) for x in x_LD[: position + 1]])
    query = made.attention.query(h[position])
    key, value = made.attention.key_value(h).split(6, dim=-1)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = torch.softmax(key[:, head] @ query[head] / 3**0.5, dim=0)
        heads.append(weights @ value[:, head])
    return made.attention.output(torch.cat(heads))


def test_plain_layer_adds_attention_then_feed_forward() -> None:
    made = block("prenorm")
    x_LD = torch.randn(4, 6)
    for position in range(4):
        x = x_LD[position] + attended(x_LD, made, position)
        wide = F.gelu(made.feed_forward.wide(normal(x, made.feed_forward_norm)))
        expected = x + made.feed_forward.narrow(wide)
        torch.testing.assert_close(made(x_LD[None], None)[0, position], expected)


def test_gated_layer_adds_as_much_as_its_gates_let_through() -> None:
    made = block("ligr")
    assert made.attention_gate is not None
    assert made.feed_forward_gate is not None
    x_LD = torch.randn(4, 6)
    for position in range(4):
        x = x_LD[position]
        x = x + attended(x_LD, made, position) * torch.sigmoid(made.attention_gate(x))
        gate, value = made.feed_forward.wide(normal(x, made.feed_forward_norm)).split(12)
        transformed = made.feed_forward.narrow(gate * torch.sigmoid(gate) * value)
        expected = x + transformed * torch.sigmoid(made.feed_forward_gate(x))
        torch.testing.assert_close(made(x_LD[None], None)[0, position], expected)


@pytest.mark.parametrize("with_bias", [False, True])
def test_weights_of_attention_are_dropped_in_training_alone_and_keep_their_mean(with_bias: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(4, 2, dropout=0.5)
    x_BLD = torch.randn(1, 3, 4).expand(4000, 3, 4)
    bias = torch.zeros(1, 2, 3, 3) if with_bias else None
    with torch.inference_mode():
        expected = attention.eval()(x_BLD, bias)  # by the fused kernel where there is no bias, and step by step
        dropped = attention.train()(x_BLD, bias)
        of_last = attention.at_last(x_BLD, x_BLD[:, 2:], torch.ones(4000, 3, dtype=torch.bool), None)
    torch.testing.assert_close(of_last, expected[:, 2:])
    assert not torch.allclose(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean(dim=0), expected[0], atol=0.05, rtol=0)
