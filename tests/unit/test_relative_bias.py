"""Buckets of time computed by hand, and a bias that is what its tables say for every pair."""

import math

import pytest
import torch

from scripts.training.blocks import Attention
from scripts.training.relative_bias import NUM_BUCKETS, Relations, RelativeBias, time_buckets

DAY = 86_400


def bucket_of(seconds: float) -> int:
    now = torch.tensor([[1_700_000_000_000]])
    return int(time_buckets(now, now - round(1000 * seconds)))


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 3, 59, 60, 3600, DAY, 30 * DAY, 400 * DAY, 20 * 365 * DAY])
def test_bucket_is_twice_the_binary_logarithm(seconds: float) -> None:
    assert bucket_of(seconds) == math.floor(2 * math.log2(seconds + 1.25))


def test_whole_seconds_lie_off_the_borders() -> None:
    """A border is at 2^(k/2) − 1.25 seconds: never whole, and for five days more than float32 rounds away from it."""
    for k in range(2, 38):
        border = 2 ** (k / 2) - 1.25
        assert abs(border - round(border)) > 1e-7 * border


def test_seconds_minutes_hours_and_years_are_told_apart_and_nothing_falls_off_the_end() -> None:
    found = [bucket_of(seconds) for seconds in (0, 10, 60, 600, 3600, DAY, 7 * DAY, 30 * DAY, 365 * DAY, 3650 * DAY)]
    assert found == sorted(set(found))
    assert bucket_of(1e12) == NUM_BUCKETS - 1
    assert bucket_of(-1e6) == 0


def test_bias_is_looked_up_for_every_pair_and_head() -> None:
    torch.manual_seed(0)
    bias = RelativeBias(2, 4, with_steps=True, with_times=True)
    assert bias.by_step is not None
    assert bias.by_bucket is not None
    with torch.no_grad():
        bias.by_step.normal_()
        bias.by_bucket.normal_()
    steps = torch.tensor([[[0, 0, 0], [1, 0, 0], [2, 1, 0]]])
    buckets = torch.randint(0, NUM_BUCKETS, (2, 3, 3))
    found = bias(Relations(steps, buckets))
    assert found.shape == (2, 2, 3, 3)
    for row in range(2):
        for head in range(2):
            for looking in range(3):
                for looked_at in range(3):
                    expected = (
                        bias.by_step[steps[0, looking, looked_at], head]
                        + bias.by_bucket[buckets[row, looking, looked_at], head]
                    )
                    torch.testing.assert_close(found[row, head, looking, looked_at], expected)


def test_bias_is_added_before_the_softmax() -> None:
    torch.manual_seed(0)
    attention = Attention(4, 1, dropout=0.0)
    x_BLD, bias = torch.randn(1, 3, 4), torch.randn(1, 1, 3, 3)
    query = attention.query(x_BLD)[0]
    key, value = attention.key_value(x_BLD)[0].split(4, dim=-1)
    for position in range(3):
        scores = key[: position + 1] @ query[position] / 2 + bias[0, 0, position, : position + 1]
        expected = attention.output(scores.softmax(dim=0) @ value[: position + 1])
        torch.testing.assert_close(attention(x_BLD, bias)[0, position], expected)


def test_times_that_are_missing_are_missed() -> None:
    bias = RelativeBias(2, 4, with_steps=False, with_times=True)
    with pytest.raises(ValueError, match="reads timestamps"):
        bias(Relations(torch.zeros(1, 3, 3, dtype=torch.int64), None))
