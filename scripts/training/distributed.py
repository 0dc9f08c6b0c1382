"""One training by several processes: each learns from its part of every batch, all take the same step.

The parts of a batch are its rows in turn, and a step descends the sum of the processes' gradients, each weighted by its
share of the targets. So how many processes take part changes the time of a training and nothing of what is learnt,
apart from what each draws for itself (dropout, which targets teach the head of any event type) and from `denoise`,
which compares the rows of a batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from scripts.training.batches import Batch
from scripts.training.config import Device

LONGEST_WAIT = timedelta(days=1)
"""For the first process while it validates, or learns and weighs rules, alone."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that validates, decides and writes."""
        return self.rank == 0

    def part_of(self, batch: Batch) -> Batch:
        """This process's rows: none where a batch has fewer rows than there are processes."""
        if self.count == 1:
            return batch
        return Batch(*(getattr(batch, field.name)[self.rank :: self.count] for field in fields(batch)))

    def sum_gradients(self, model: nn.Module) -> None:
        """Put the sum over all processes into the gradients of each; what has none counts as zero."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        flat = torch.cat(
            [
                (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
                for parameter in parameters
            ]
        )
        distributed.all_reduce(flat)
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: float, device: torch.device) -> float:
        """Over all processes."""
        if self.count == 1:
            return value
        # No double on some devices, and none needed: a mean loss of four digits is what comes of it.
        total: Tensor = torch.tensor(value, dtype=torch.float32, device=device)
        distributed.all_reduce(total)
        return total.item()

    def agreed(self, record: dict[str, Any] | None) -> dict[str, Any]:
        """What the first process gives, on every process; what the others give is not looked at."""
        if self.count > 1:
            records = [record]
            distributed.broadcast_object_list(records)
            [record] = records
        if record is None:
            raise ValueError("the first process has nothing to agree on")
        return record


ALONE = Processes()


@contextmanager
def joined(device: Device) -> Iterator[Processes]:
    """The processes that torchrun started together, `ALONE` without it: over NCCL with a GPU each where they train on
    GPUs, over Gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
