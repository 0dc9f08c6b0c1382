"""A run folder: what training leaves behind, and how the later stages take it up again.

config.json       the resolved experiment, the data it was trained on, what was counted of them, why the recipe chose
                  what it chose
checkpoint.pt     everything needed to go on after an interruption, as of the last finished epoch
best.pt           the weights of the best epoch
fusion.pt         the rules that they are mixed with, the share that validation gave to the rules, the re-ranker
long_tail.json    what discounts of popularity traded on validation, the chosen one last; only where asked for
history.jsonl     one line per epoch
member-2/ …       checkpoint.pt, best.pt and history.jsonl of the other members, where there are several
tensorboard/      the same, for TensorBoard
refit/            checkpoint.pt, history.jsonl, weights.pt, fusion.pt: the training on everything, where there was one
evaluation.json, report.html   written by evaluate
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from scripts.training.config import ConfigError, TrainingConfig
from scripts.training.ensemble import Attention, Ensemble
from scripts.training.evaluation import Scorer
from scripts.training.fusion import FusedModel
from scripts.training.interactions import PreparedData
from scripts.training.long_tail import Discounted, Trade
from scripts.training.model import SequenceModel
from scripts.training.reranker import Reranker
from scripts.training.rules import RuleTable
from scripts.training.scorer import ModelScorer

CONFIG_FILE = "config.json"
CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"
HISTORY_FILE = "history.jsonl"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
FUSION_FILE = "fusion.pt"
LONG_TAIL_FILE = "long_tail.json"
TENSORBOARD_FOLDER = "tensorboard"
REFIT_FOLDER = "refit"
REFIT_WEIGHTS_FILE = "weights.pt"
WATCHED_METRIC = "ndcg@10"
"""Of validation: what decides which epoch is the best."""


class RunError(Exception):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True)
class RunConfig:
    """`config.json`."""

    training: TrainingConfig
    data_folder: str
    data_fingerprint: str
    num_items: int
    reasons: Mapping[str, str]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """What `recipe.count` found."""


@dataclass(frozen=True)
class Run:
    """A finished run: the model, the data it came from, how training went, the strength of the discount of popularity
    (0: none)."""

    folder: Path
    config: RunConfig
    data: PreparedData
    model: FusedModel
    history: list[dict[str, Any]]
    refit: bool
    popularity_discount: float = 0.0

    @property
    def num_epochs(self) -> int:
        """Epochs that made these weights."""
        if self.refit:
            return len(self.history)
        return int(max(self.history, key=lambda record: float(record[WATCHED_METRIC]))["epoch"])

    @property
    def scorer(self) -> Scorer:
        """What the run ranks by: its model, less the discount."""
        return self._discounted(self.model)

    def parts(self) -> dict[str, Scorer]:
        """What is left of the scorer without its later stages, by name; empty where attention is all there is."""
        parts = {name: self._discounted(part) for name, part in self.model.parts().items()}
        return {**parts, "without_discount": ModelScorer(self.model)} if self.popularity_discount else parts

    def _discounted(self, model: FusedModel) -> Scorer:
        if not self.popularity_discount:
            return ModelScorer(model)
        learnt_from = self.data.everything if self.refit else self.data.train
        return Discounted(ModelScorer(model), learnt_from.item_counts(self.data.num_items), self.popularity_discount)


def load_run(run: Path, *, refit: bool = False) -> Run:
    """The best weights of a run, or with `refit` those trained on everything, which no metric may be measured with.

    Raises:
        RunError: no run, an unfinished one, or prepared data that are no longer those it was trained on.
    """
    config = read_run_config(run)
    data = load_data(config)
    folder, weights = (run / REFIT_FOLDER, REFIT_WEIGHTS_FILE) if refit else (run, BEST_FILE)
    path = folder / weights
    if not path.is_file():
        raise RunError(f"{path} does not exist; train {'with --refit ' if refit else ''}first")
    attention = read_attention(folder, weights, config.training, config.num_items)
    model = read_fusion(folder, attention)
    return Run(run, config, data, model, read_history(folder), refit, read_discount(run))


def read_weights(path: Path, config: TrainingConfig, num_items: int) -> SequenceModel:
    """The attention model of a configuration with the weights of a file, on the CPU."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return SequenceModel.of_state(config.model_config(num_items), state)


def read_attention(folder: Path, weights_file: str, config: TrainingConfig, num_items: int) -> Attention:
    """All members that were trained in a folder, as one."""
    files = [member_folder(folder, member) / weights_file for member in range(1, config.members + 1)]
    models = [read_weights(path, config, num_items) for path in files]
    return models[0] if len(models) == 1 else Ensemble(models)


def member_folder(folder: Path, member: int) -> Path:
    """Where the checkpoint, the weights and the history of a member lie, counted from 1."""
    return folder if member == 1 else folder / f"member-{member}"


def write_fusion(folder: Path, model: FusedModel) -> None:
    """Keep what the weights in `folder` are mixed with."""
    content: dict[str, Any] = {"share": model.share, "returns": model.returns}
    if model.share:
        content |= {"items": model.items_VN, "weights": model.weights_VN}
    if model.reranker is not None:
        content |= {
            "reranker": model.reranker.state_dict(),
            "excludes_seen": model.reranker.excludes_seen,
            "statistics": model.statistics_VS,
        }
    save_tensors(folder / FUSION_FILE, content)


def read_fusion(folder: Path, attention: Attention) -> FusedModel:
    """The attention model with all that it is mixed with.

    Raises:
        RunError: training ended before it was written.
    """
    path = folder / FUSION_FILE
    if not path.is_file():
        raise RunError(f"{path} does not exist; finish the training with python -m scripts.train --resume")
    content = torch.load(path, map_location="cpu", weights_only=True)
    rules, reranker, statistics_VS = None, None, None
    if content["share"]:
        rules = RuleTable(content["items"].numpy(), content["weights"].numpy())
    if "reranker" in content:
        num_features = len(content["reranker"]["mean_F"])
        reranker = Reranker(excludes_seen=content["excludes_seen"], num_features=num_features)
        reranker.load_state_dict(content["reranker"])
        statistics_VS = content["statistics"].numpy()
    returns = content.get("returns", 0.0)  # runs that were trained before there were any
    return FusedModel(attention, rules, content["share"], reranker, statistics_VS, returns=returns)


def write_trades(run: Path, trades: Sequence[Trade]) -> None:
    """The last one is the one chosen."""
    content = json.dumps([asdict(trade) for trade in trades], indent=2) + "\n"
    write_atomically(run / LONG_TAIL_FILE, content.encode())


def read_discount(run: Path) -> float:
    """Strength of the discount of popularity that was chosen; 0 where none was asked for."""
    path = run / LONG_TAIL_FILE
    return float(json.loads(path.read_bytes())[-1]["strength"]) if path.is_file() else 0.0


def is_refitted(run: Path) -> bool:
    """Whether the run holds weights that were trained on everything."""
    return (run / REFIT_FOLDER / REFIT_WEIGHTS_FILE).is_file()


def start_run(run: Path, config: RunConfig, *, resume: bool) -> None:
    """Make the folder that `trainer.train` fills, or with `resume` see to it that training can go on in it.

    Raises:
        RunError: a training is in it already and `resume` is not set, or it is of other data.
    """
    if resume and (run / CONFIG_FILE).is_file():
        found = read_run_config(run).data_fingerprint
        if found != config.data_fingerprint:
            raise RunError(
                f"{run} was begun on data with fingerprint {found[:12]}…, not {config.data_fingerprint[:12]}…"
            )
        return
    # Of several members the first is trained last: until then only others have a checkpoint.
    if any(path.is_file() for path in (run / CHECKPOINT_FILE, *run.glob(f"member-*/{CHECKPOINT_FILE}"))):
        raise RunError(f"{run} holds a training already; go on with --resume, or choose another output")
    run.mkdir(parents=True, exist_ok=True)
    write_run_config(run, config)


def load_data(config: RunConfig) -> PreparedData:
    """Raises RunError when the prepared data changed since the run began."""
    data = PreparedData.load(Path(config.data_folder))
    if data.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{config.data_folder} has fingerprint {data.fingerprint[:12]}…, the run was trained on "
            f"{config.data_fingerprint[:12]}…; prepare the data as they were, or train again"
        )
    return data


def read_run_config(run: Path) -> RunConfig:
    """Raises RunError for a folder that holds no run."""
    path = run / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunConfig(**{**values, "training": TrainingConfig().with_values(values["training"])})
    except FileNotFoundError as error:
        raise RunError(f"{run} holds no {CONFIG_FILE}; train it first") from error
    except (json.JSONDecodeError, KeyError, TypeError, ConfigError) as error:
        raise RunError(
            f"{path} is not the configuration of a run that this version reads: {error}; train it again"
        ) from error


def write_run_config(run: Path, config: RunConfig) -> None:
    write_atomically(run / CONFIG_FILE, (json.dumps(asdict(config), indent=2) + "\n").encode())


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs in order, none where training wrote none yet."""
    path = folder / HISTORY_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(folder / HISTORY_FILE, "".join(json.dumps(dict(record)) + "\n" for record in history).encode())


def save_tensors(path: Path, content: object) -> None:
    """`torch.save` that is either done or not: a reader never meets half a file."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
