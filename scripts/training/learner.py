"""What one step of training changes: the model, its optimizer and the average of its weights.

Shapes: B batch, L length, T targets (the positions that have a next item), D embedding, V catalogue with padding.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scripts.training.batches import Batch
from scripts.training.config import TrainingConfig
from scripts.training.full_softmax import fast_precision
from scripts.training.losses import binary_cross_entropy, cross_entropy, gbce, sample_negatives, sampled_softmax
from scripts.training.model import SequenceModel
from scripts.training.run_folder import RunError


class Learner:
    """Model, optimizer and averaged weights: what one step changes and a checkpoint keeps."""

    def __init__(self, config: TrainingConfig, num_items: int) -> None:
        self.config = config
        self.device = _device(config.device)
        torch.manual_seed(config.seed)
        self.model = SequenceModel(config.model_config(num_items)).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = _optimizer(self.model, config)
        self.num_steps = 0
        self.generator = torch.Generator(self.device)
        self._loss = _loss_function(config, num_items)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "num_steps": self.num_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_steps = state["num_steps"]

    @property
    def learning_rate(self) -> float:
        """Of the next step: rising linearly over the warm-up, constant after it."""
        return self.config.learning_rate * min(1.0, (self.num_steps + 1) / max(self.config.warmup_steps, 1))

    def begin_epoch(self, epoch: int) -> None:
        """Dropout and negatives of an epoch follow from its number: no generator's state has to survive an
        interruption."""
        seed = int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0])
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)
        self.model.train()

    def backward(self, batch: Batch, share: float) -> float:
        """Add `share` of the batch's gradient to that of the coming step; returns the batch's loss."""
        items_BL = torch.from_numpy(batch.items_BL).to(self.device)
        targets_BL = torch.from_numpy(batch.targets_BL).to(self.device)
        has_target_BL = targets_BL != 0
        autocast = (
            torch.autocast(self.device.type, dtype=torch.bfloat16)
            if _takes_bfloat16(self.config, self.device)
            else nullcontext()
        )
        with autocast:
            item_vectors_VD = self.model.item_vectors()
            states_TD = self.model(items_BL, item_vectors_VD)[has_target_BL]
            loss: Tensor = self._loss(states_TD, targets_BL[has_target_BL], item_vectors_VD, self.generator)
        (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        value = loss.item()
        if not math.isfinite(value):
            raise RunError(f"the loss is {value} at step {self.num_steps + 1}; lower learning_rate or clip_norm")
        return value

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1
        # The average of few steps must not remember the first weights for long.
        decay = min(self.config.average_decay, (1 + self.num_steps) / (10 + self.num_steps))
        decay = decay if self.config.average_decay else 0.0
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def averaged_model(self) -> SequenceModel:
        model = SequenceModel(self.model.config).to(self.device)
        model.load_state_dict(self.average)
        return model.eval()


def _loss_function(
    config: TrainingConfig, num_items: int
) -> Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]:
    """The configured loss with its negatives drawn; its arguments are states (T, D), targets (T,), item embeddings (V,
    D)."""

    if config.loss == "cross_entropy":
        precision = {"auto": fast_precision(), "float32": torch.float32, "bfloat16": torch.bfloat16}[config.precision]
        return lambda states_TD, targets_T, items_VD, _: cross_entropy(
            states_TD, targets_T, items_VD, precision=precision
        )
    losses: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
        "sampled_softmax": sampled_softmax,
        "bce": binary_cross_entropy,
        "gbce": partial(gbce, calibration=config.calibration),
    }
    sampled = losses[config.loss]

    def with_negatives(states_TD: Tensor, targets_T: Tensor, items_VD: Tensor, generator: torch.Generator) -> Tensor:
        return sampled(states_TD, targets_T, items_VD, sample_negatives(num_items, config.num_negatives, generator))

    return with_negatives


def _optimizer(model: SequenceModel, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW that shrinks the matrices of the layers only: not embeddings, biases and norms."""
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    decayed = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in decayed]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RunError("device cuda was asked for, but this torch sees no CUDA device; use device=auto or cpu")
    return torch.device(wanted)


def _takes_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
