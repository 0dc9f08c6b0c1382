"""The loss of a batch is what its definition says, however few rows of the catalogue it touches."""

from typing import Any

import numpy as np
import pytest
import torch

from scripts.training.attributes import shared_attributes
from scripts.training.batches import Batch
from scripts.training.config import TrainingConfig
from scripts.training.losses import gbce
from scripts.training.model import SequenceModel
from scripts.training.negatives import NegativeSampler
from scripts.training.objective import Objective
from scripts.training.sampled_softmax import sampled_softmax

NUM_ITEMS = 30
ITEMS = [{"colour": ["red", "green", "blue"][index % 3], "shiny": index % 2 == 0} for index in range(NUM_ITEMS)]
CONFIG = TrainingConfig(max_length=3, dim=8, num_blocks=1, precision="float32")
EVENTS = torch.arange(1, NUM_ITEMS + 1)
BATCH = Batch(
    items_BL=np.array([[4, 7, 2], [9, 4, 0]]),
    targets_BL=np.array([[7, 2, 9], [4, 1, 0]]),
    timestamps_ms_BL=np.array([[1000, 5000, 90_000], [3000, 3000, 0]]),
    event_types_BL=np.array([[1, 1, 2], [2, 1, 0]]),
    target_types_BL=np.array([[1, 2, 1], [1, 1, 0]]),
)


def model(config: TrainingConfig) -> SequenceModel:
    torch.manual_seed(0)
    table = None if config.attributes == "none" else shared_attributes(ITEMS)
    return SequenceModel(config.model_config(NUM_ITEMS), table).eval()


def objective(config: TrainingConfig) -> Objective:
    return Objective(config, NUM_ITEMS, EVENTS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("changes", [{}, {"attributes": "embedding"}], ids=str)
@pytest.mark.parametrize("loss", ["sampled_softmax", "gbce"])
def test_sampled_loss_over_named_rows_is_that_over_the_whole_table(loss: str, changes: dict[str, Any]) -> None:
    config = CONFIG.with_values({"loss": loss, "num_negatives": 12, **changes})
    sequence_model = model(config)
    found = objective(config)(sequence_model, BATCH, generator())
    found.backward()
    gradients = [parameter.grad for parameter in sequence_model.parameters()]

    sequence_model.zero_grad()
    table = sequence_model.item_vectors()
    targets = torch.from_numpy(BATCH.targets_BL)
    states = sequence_model(torch.from_numpy(BATCH.items_BL), table)[targets != 0]
    negatives = NegativeSampler("uniform", 12, NUM_ITEMS, EVENTS).draw(targets, generator())
    expected = (
        sampled_softmax(states, targets[targets != 0], table, negatives)
        if loss == "sampled_softmax"
        else gbce(states, targets[targets != 0], table, negatives, num_items=NUM_ITEMS, calibration=0.75)
    )
    torch.testing.assert_close(found, expected)
    expected.backward()
    for gradient, parameter in zip(gradients, sequence_model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
