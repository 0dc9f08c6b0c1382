"""Models that read more than items export as well: onnxruntime scores as torch does at other lengths and batch sizes
than those of the example, with rows appended to the table."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from scripts.training.graph import _quiet_exporter
from scripts.training.model import Context, SequenceModel
from scripts.training.model_config import ContextInput, ModelConfig

NUM_ITEMS, MAX_LENGTH = 30, 12
VARIANTS: list[dict[str, Any]] = [
    {"position_bias": True, "position_embedding": False},
    {"position_bias": True, "time_bias": True},
    {"time_bias": True, "temporal": "conv", "layer": "ligr"},
    {"event_types": True},
    {"event_types": True, "time_bias": True, "temporal": "conv"},
]


class Scores(nn.Module):
    """A model as a graph whose inputs are items, the table and what its configuration names."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, item_vectors: Tensor, context: list[Tensor]) -> Tensor:
        named = dict(zip(self.model.config.context_inputs, context, strict=True))
        return self.model.next_scores(items, item_vectors, context_of(named))


def context_of(named: dict[ContextInput, Tensor]) -> Context:
    return Context(named.get("timestamps_ms"), named.get("event_types"), named.get("target_type"))


def random_inputs(rng: np.random.Generator, size: int, length: int) -> dict[str, Tensor]:
    filled = torch.arange(length) < torch.from_numpy(rng.integers(0, length + 1, size))[:, None]
    filled[0] = True
    items = torch.from_numpy(rng.integers(1, NUM_ITEMS + 1, (size, length)))
    times_ms = 1_700_000_000_000 + np.cumsum(np.exp(rng.uniform(5, 22, (size, length))), axis=1).astype(np.int64)
    return {
        "items": torch.where(filled, items, 0),
        "timestamps_ms": torch.where(filled, torch.from_numpy(times_ms), 0),
        "event_types": torch.where(filled, torch.from_numpy(rng.integers(1, 4, (size, length))), 0),
        "target_type": torch.from_numpy(rng.integers(0, 4, size)),
    }


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_exported_model_scores_as_torch_does(variant: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(NUM_ITEMS, MAX_LENGTH, dim=16, num_blocks=2, **variant)
    model = SequenceModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        model.item_embedding.weight[0] = 0
    rng = np.random.default_rng(0)
    example = random_inputs(rng, 2, 3)
    names = config.context_inputs
    batch, length, rows = torch.export.Dim("batch"), torch.export.Dim("length"), torch.export.Dim("rows")
    with _quiet_exporter():
        program = torch.onnx.export(
            Scores(model),
            (example["items"], model.item_vectors().detach(), [example[name] for name in names]),
            dynamo=True,
            opset_version=20,
            input_names=["items", "item_vectors", *names],
            dynamic_shapes={
                "items": {0: batch, 1: length},
                "item_vectors": {0: rows},
                "context": [{0: batch} if name == "target_type" else {0: batch, 1: length} for name in names],
            },
            verbose=False,
        )
    assert program is not None
    program.save(str(tmp_path / "model.onnx"))
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])

    table = torch.cat([model.item_vectors().detach(), torch.randn(2, 16)])
    for size in (1, 2, 7):
        for each_length in (1, 2, 5, MAX_LENGTH):
            inputs = random_inputs(rng, size, each_length)
            with torch.inference_mode():
                context = context_of({name: inputs[name] for name in names})
                expected = model.next_scores_of_full_pass(inputs["items"], table, context)
            feed = {name: inputs[name].numpy() for name in ("items", *names)}
            [found] = session.run(None, feed | {"item_vectors": table.numpy()})
            np.testing.assert_allclose(found, expected.numpy(), atol=2e-5, rtol=1e-5)
