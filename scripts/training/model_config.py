"""The shape of a model, apart from the model: it is read by commands and kept in run folders and manifests."""

from dataclasses import dataclass
from typing import Literal

from scripts.training.blocks import Layer
from scripts.training.prediction_head import Head
from scripts.training.temporal import Temporal

ContextInput = Literal["timestamps_ms", "event_types", "target_type"]
Attributes = Literal["none", "embedding"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model: all that is needed to build it again before its weights are loaded."""

    num_items: int
    max_length: int
    dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    position_embedding: bool = True
    position_bias: bool = False
    time_bias: bool = False
    event_types: bool = False
    layer: Layer = "prenorm"
    expansion: int = 4
    dropout: float = 0.2
    attention_dropout: float = 0.0
    temporal: Temporal = "none"
    kernel_sizes: tuple[int, ...] = (5,)
    head: Head = "residual"
    attributes: Attributes = "none"

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What a model of this shape reads of a `Context`, in the order of the graph's inputs."""
        times: tuple[ContextInput, ...] = ("timestamps_ms",) if self.time_bias else ()
        return (*times, "event_types", "target_type") if self.event_types else times

    def __post_init__(self) -> None:
        sizes = (self.num_items, self.max_length, self.dim, self.num_blocks, self.num_heads, self.expansion)
        if min(*sizes, *self.kernel_sizes) < 1 or not self.kernel_sizes:
            raise ValueError(f"every size of a model is at least 1, found {self}")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} cannot be divided among {self.num_heads} heads")
