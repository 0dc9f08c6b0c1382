"""The shape of a model, apart from the model: it is read by commands and kept in run folders and manifests."""

from dataclasses import dataclass
from typing import Literal

from scripts.training.blocks import Layer
from scripts.training.prediction_head import Head
from scripts.training.temporal import Temporal

ContextInput = Literal["timestamps_ms", "event_types", "target_type"]
Attributes = Literal["none", "embedding"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What an experiment says of its model; `config.TrainingConfig` explains each key."""

    max_length: int = 50
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
    attributes: Attributes = "none"
    head: Head = "residual"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelShape):
    """All that is needed to build a model again before its weights are loaded."""

    num_items: int

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What a model of this shape reads of a `Context`, in the order of the graph's inputs."""
        times: tuple[ContextInput, ...] = ("timestamps_ms",) if self.time_bias else ()
        return (*times, "event_types", "target_type") if self.event_types else times
