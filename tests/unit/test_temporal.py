"""The convolution against its definition, one number at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from scripts.training import temporal
from scripts.training.temporal import CausalConvolution


@pytest.mark.parametrize("way", ["convolved_lines", "summed_windows"], ids=["processor", "gpu"])
@pytest.mark.parametrize("kernel_sizes", [(1,), (3,), (2, 5)])
def test_each_dimension_is_filtered_over_the_steps_before_it_at_every_scale(
    kernel_sizes: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "convolved_lines", getattr(temporal, way))
    torch.manual_seed(0)
    module = CausalConvolution(4, kernel_sizes, dropout=0.0)
    x = torch.randn(2, 6, 4)
    normal = F.layer_norm(x, (4,))
    expected = x.clone()
    for convolution, size in zip(module.convolutions, kernel_sizes, strict=True):
        weight, bias = convolution.state_dict()["weight"], convolution.state_dict()["bias"]
        for row in range(2):
            for step in range(6):
                for dimension in range(4):
                    total = float(bias[dimension])
                    for back in range(min(size, step + 1)):
                        total += float(weight[dimension, 0, size - 1 - back] * normal[row, step - back, dimension])
                    activated = total * 0.5 * (1 + math.erf(total / math.sqrt(2)))
                    expected[row, step, dimension] += activated / math.sqrt(len(kernel_sizes))
    torch.testing.assert_close(module(x), expected)
