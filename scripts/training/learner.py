"""What one step of training changes: the model, its optimizer and the average of its weights."""

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scripts.training.attributes import shared_attributes
from scripts.training.batches import Batch
from scripts.training.config import Device, TrainingConfig
from scripts.training.distributed import ALONE, Processes
from scripts.training.full_softmax import fast_precision
from scripts.training.interactions import Interactions, PreparedData
from scripts.training.model import SequenceModel
from scripts.training.objective import Objective
from scripts.training.run_folder import RunError


class Learner:
    """Model, optimizer and averaged weights: what one step changes and a checkpoint keeps."""

    def __init__(
        self, config: TrainingConfig, data: PreparedData, learnt_from: Interactions, processes: Processes = ALONE
    ) -> None:
        """`data` tell what items there are and what is known of them; `learnt_from` are the events that batches are
        made of; every one of the processes has a learner of its own, and all stay the same.

        Raises:
            RunError: no CUDA device where one is asked for, a bias of time over data without a clock, or heads of event
                types over data with one type.
        """
        if config.time_bias and not data.has_clock:
            raise RunError("time_bias needs times that are a clock, these data have only an order; set time_bias=false")
        if config.event_types and len(np.unique(learnt_from.event_types)) < 2:
            raise RunError("event_types needs events of several types, these data have one; set event_types=false")
        self.config = config
        self.processes = processes
        self.device = training_device(config.device)
        torch.manual_seed(config.seed)
        attributes = None if config.attributes == "none" else shared_attributes(data.attributes)
        self.model = SequenceModel(config.model_config(data.num_items), attributes).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = _optimizer(self.model, config)
        self.num_steps = 0
        self.generator = torch.Generator(self.device)
        events = torch.from_numpy(learnt_from.items).to(self.device)
        self._objective = Objective(config, data.num_items, events)

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
        # Every process drops out for itself; the negatives of all are the same.
        torch.manual_seed(seed + self.processes.rank)
        self.generator.manual_seed(seed)
        self.model.train()

    def backward(self, batch: Batch, share: float) -> float:
        """Add `share` of the gradient of this process's part of a batch to that of the coming step; returns the loss of
        the part."""
        autocast = (
            torch.autocast(self.device.type, dtype=torch.bfloat16)
            if _takes_bfloat16(self.config, self.device)
            else nullcontext()
        )
        with autocast:
            loss = self._objective(self.model, batch, self.generator)
        (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        value = loss.item()
        if not math.isfinite(value):
            raise RunError(f"the loss is {value} at step {self.num_steps + 1}; lower learning_rate or clip_norm")
        return value

    def step(self) -> None:
        self.processes.sum_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1
        # The average of few steps must not remember the first weights for long.
        decay = min(self.config.average_decay, (1 + self.num_steps) / (10 + self.num_steps))
        decay = decay if self.config.average_decay else 0.0
        state = self.model.state_dict()
        weights = [name for name, value in state.items() if value.is_floating_point()]
        # All at once: one by one, a GPU waits longer for the calls than it works.
        average_of_all = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        average_of_all([self.average[name] for name in weights], [state[name] for name in weights], self.num_steps)

    def averaged_model(self) -> SequenceModel:
        return SequenceModel.of_state(self.model.config, self.average).to(self.device).eval()


def _optimizer(model: SequenceModel, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW that shrinks the matrices of the layers only: not embeddings, biases and norms."""
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    decayed = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in decayed]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def training_device(wanted: Device) -> torch.device:
    """Where a model is trained, and what it is mixed with is chosen. On a GPU torch's attention goes without cuDNN from
    here on.

    Raises:
        RunError: no CUDA device where one is asked for.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RunError("device cuda was asked for, but this torch sees no CUDA device; use device=auto or cpu")
    if wanted == "cuda":
        # It would prepare for every new shape of a batch, which takes longer than the batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(wanted)


def _takes_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return device.type == "cuda" and fast_precision(device) == torch.bfloat16
