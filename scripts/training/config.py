"""What defines an experiment: one frozen value, read from TOML and `key=value`, refused with the key and the reason
when wrong."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from scripts.training.losses import Loss
from scripts.training.model_config import ModelConfig, ModelShape
from scripts.training.negatives import NegativeSource

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]

_WHOLE = ["max_length", "dim", "num_blocks", "num_heads", "expansion", "num_negatives", "batch_tokens", "accumulation"]
_WHOLE += ["max_epochs", "patience", "validation_cases", "members"]
_SHARES = ["dropout", "attention_dropout", "denoise", "average_decay", "tail_budget"]
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    **{name: ("at least 1", lambda value: value >= 1) for name in _WHOLE},
    **{name: ("in [0, 1)", lambda value: 0 <= value < 1) for name in _SHARES},
    **{name: ("above 0", lambda value: value > 0) for name in ("learning_rate", "clip_norm")},
    **{name: ("0 or more", lambda value: value >= 0) for name in ("weight_decay", "warmup_steps", "followers", "seed")},
    "calibration": ("in [0, 1]", lambda value: 0 <= value <= 1),
}
"""Of each key that is a number: its range as text and as test."""


class ConfigError(ValueError):
    """An experiment that cannot be run as written."""


@dataclass(frozen=True)
class TrainingConfig(ModelShape):
    """Model, loss and optimisation of one run.

    max_length     steps of a history that the model reads
    dim            width of item vectors and states
    num_blocks     of attention, one after the other
    num_heads      of each block, which share its width out
    position_embedding  added to each item: how many steps it lies before the newest
    position_bias  a learnt number per head for the steps between two events is added to their attention score
    time_bias      the same for the time between them, in buckets that grow with it; needs times that are a clock
    event_types    are read with the items, and each has a head of its own over a shared body; which one ranks is chosen
                   at request time, otherwise one for any type; needs events of several types, and validation asks for
                   each event by its own
    layer          plain residual blocks, or gated ones (ligr)
    expansion      the feed-forward layer is so many times dim wide
    dropout        of embeddings and of what each layer adds
    attention_dropout  of the weights with which attention mixes events
    temporal       module after attention: a causal depthwise convolution, or a recurrent layer
    kernel_sizes   steps that the convolution sees; several are scales side by side
    attributes     of items: added to their vectors (embedding) or left out; of no use where the data know of no value
                   that several items share
    head           fully connected prediction head: two layers whose output is added to the state (residual); with none
                   the state is scored as it is
    loss           over the whole catalogue, or over sampled negatives
    num_negatives  of the sampled losses, shared by a batch
    negatives      where the sampled ones are drawn: every item alike, by popularity, or among the batch's own targets
    logq_correction  of sampled_softmax for how often a negative was to be expected: it then estimates cross_entropy
    denoise        events that the model finds implausible teach less, of the two kinds of softmax: a target to which it
                   gives the probability p counts p^denoise, relative to its batch; 0: all alike
    calibration    t of gbce: 0 is binary cross-entropy as it is, 1 makes up for the sampling in full
    learning_rate  of AdamW
    weight_decay   of AdamW
    batch_tokens   steps per batch
    accumulation   batches that make one step of the optimizer
    max_epochs     at most so many
    warmup_steps   over which the learning rate rises linearly; constant after
    clip_norm      largest norm of the gradient
    average_decay  of the exponential moving average of the weights, which is what is evaluated and kept; 0 keeps the
                   weights themselves
    patience       epochs without a better validation NDCG@10 before training stops
    validation_cases  at most so many, drawn once by seed
    followers      rules kept per item for the mixture with sequential rules, whose share validation decides; 0: none
    members        so many models, trained alike from different seeds, whose scores are averaged
    rerank         a small network reorders the best of the mixture; it learns from an inner hold-out of the training
                   part, about 3 % of its events (of few users the same number each, rounded up), which the model then
                   does not see
    tail_budget    share of the validation hit rate that may be given up so that items of the long tail are shown more
                   often: what popularity adds to a score is taken off again, as far as that allows
    precision      of matrix products: auto takes bfloat16 where it is faster
    device         auto takes a GPU where there is one
    seed           of weights, dropout, negatives and the order of batches
    """

    loss: Loss = "cross_entropy"
    num_negatives: int = 256
    negatives: NegativeSource = "uniform"
    logq_correction: bool = False
    denoise: float = 0.0
    calibration: float = 0.75
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    clip_norm: float = 1.0
    average_decay: float = 0.99
    batch_tokens: int = 4096
    accumulation: int = 1
    max_epochs: int = 100
    patience: int = 10
    validation_cases: int = 10_000
    followers: int = 100
    members: int = 1
    rerank: bool = False
    tail_budget: float = 0.0
    precision: Precision = "auto"
    device: Device = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        faults = [*_type_faults(self), *_range_faults(self)]
        faults = faults or _conflicts(self)  # values that are wrong in themselves would only repeat themselves there
        if faults:
            raise ConfigError("; ".join(faults))

    def model_config(self, num_items: int) -> ModelConfig:
        shape = {field.name: getattr(self, field.name) for field in dataclasses.fields(ModelShape)}
        return ModelConfig(num_items=num_items, **shape)

    def with_values(self, values: Mapping[str, Any]) -> "TrainingConfig":
        """A copy with some keys changed.

        Raises:
            ConfigError: an unknown key, or a value of the wrong type or range.
        """
        known = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown key {', '.join(unknown)}; known are {', '.join(known)}")
        # TOML and JSON know lists only.
        fitting: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return dataclasses.replace(self, **fitting)


def read_config(path: Path) -> TrainingConfig:
    """An experiment from a TOML file of plain keys; keys that it lacks keep their default.

    Raises:
        ConfigError: no TOML, an unknown key, or a value that does not fit.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return TrainingConfig().with_values(values)
    except (OSError, tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def config_toml(config: TrainingConfig) -> str:
    """The experiment as `read_config` reads it, every key on a line of its own."""
    # Numbers, texts and lists of them are written alike in JSON and TOML.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in dataclasses.asdict(config).items())


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts, each value as TOML writes it; text needs no quotes: `["dim=32", "loss=bce"]` → `{"dim": 32,
    "loss": "bce"}`.

    Raises:
        ConfigError: a text without `=`.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, found {assignment!r}")
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    return values


def _type_faults(config: TrainingConfig) -> list[str]:
    faults = []
    for name, kind in get_type_hints(TrainingConfig).items():
        value = getattr(config, name)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if kind == tuple[int, ...]:
            if not (isinstance(value, tuple) and value and all(type(each) is int and each >= 1 for each in value)):
                faults.append(f"{name} must be a list of whole numbers of at least 1, found {value!r}")
        elif choices and value not in choices:
            faults.append(f"{name} must be one of {', '.join(choices)}, found {value!r}")
        elif kind is int and type(value) is not int:
            faults.append(f"{name} must be a whole number, found {value!r}")
        elif kind is bool and type(value) is not bool:
            faults.append(f"{name} must be true or false, found {value!r}")
        elif kind is float and type(value) not in (int, float):
            faults.append(f"{name} must be a number, found {value!r}")
    return faults


def _range_faults(config: TrainingConfig) -> list[str]:
    """A value of the wrong type is reported as such and skipped here."""
    return [
        f"{name} must be {text}, found {value!r}"
        for name, (text, holds) in RANGES.items()
        if isinstance(value := getattr(config, name), int | float) and not holds(value)
    ]


def _conflicts(config: TrainingConfig) -> list[str]:
    """Values that are right by themselves and wrong beside one another."""
    conflicts = {
        f"dim must be a multiple of num_heads, found {config.dim} and {config.num_heads}": config.dim % config.num_heads
        != 0,
        f"denoise belongs to cross_entropy and sampled_softmax, not to {config.loss}": (
            config.denoise > 0 and config.loss not in ("cross_entropy", "sampled_softmax")
        ),
        f"logq_correction belongs to sampled_softmax, not to {config.loss}; set logq_correction=false and "
        "negatives=uniform": (config.logq_correction and config.loss != "sampled_softmax"),
    }
    return [text for text, holds in conflicts.items() if holds]
