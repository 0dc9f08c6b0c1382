"""Small data of which the right answer is known, and small models that learn it in seconds."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from scripts.training.config import TrainingConfig

SMALL = TrainingConfig(
    max_length=20,
    dim=32,
    num_blocks=1,
    dropout=0.1,
    learning_rate=5e-3,
    warmup_steps=20,
    batch_tokens=512,
    max_epochs=12,
    patience=12,
    precision="float32",
    followers=0,
    device="cpu",
)


class SilentObserver:
    def on_member(self, member: int, num_members: int) -> None: ...
    def on_batch(self, epoch: int, tokens: int, loss: float) -> None: ...

    def on_epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None: ...


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products are slower on several threads, many times slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
