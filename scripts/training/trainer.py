"""Training: from prepared data to the best weights, in steps that an interruption cannot harm.

After every epoch the checkpoint holds the state that the next one starts from, written whole or not at all. What else
an epoch depends on (its batches, dropout, negatives) follows from the seed and the epoch's number, so a killed run
that is resumed ends with the weights of one that was never interrupted.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from scripts.training.batches import Batch, epoch_batches
from scripts.training.config import TrainingConfig
from scripts.training.distributed import ALONE, Processes
from scripts.training.fitting import Fitted, fit_fusion, inner_hold_out, refit_fusion
from scripts.training.fusion import FusedModel
from scripts.training.interactions import Cases, Interactions, PreparedData
from scripts.training.learner import Learner, training_device
from scripts.training.long_tail import Trade, choose_discount
from scripts.training.model import SequenceModel
from scripts.training.run_folder import (
    BEST_FILE,
    CHECKPOINT_FILE,
    REFIT_FOLDER,
    REFIT_WEIGHTS_FILE,
    WATCHED_METRIC,
    RunError,
    member_folder,
    read_attention,
    read_fusion,
    read_history,
    save_tensors,
    write_fusion,
    write_history,
    write_trades,
)
from scripts.training.scorer import ModelScorer, validate
from scripts.training.tracking import Nothing, StartTracker, TensorBoard

SEED_STEP = 1000
FUSION_CASES = 3000
"""So many validation cases decide the share of the rules at most: each is ranked once per share."""
RERANKER_CASES = 30_000
"""So many judge the re-ranker at most: a thousandth of NDCG@10 that it adds is lost in the noise of 10,000."""


class Observer(Protocol):
    """Told how training goes; whoever prints or draws implements this."""

    def on_member(self, member: int, num_members: int) -> None:
        """The training of one of the models that become one begins; the first comes last."""

    def on_batch(self, epoch: int, tokens: int, loss: float) -> None:
        """One batch of `tokens` steps is done; `loss` is the mean over the epoch so far."""

    def on_epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None:
        """One epoch is done and saved."""


@dataclass(frozen=True)
class Outcome:
    """`best` is the record of the best epoch (of the last one where nothing validates), `num_epochs` how many there
    were: both of the first member.

    best_epochs: of every member, the first first.
    fitted: what the weights were then mixed with, None without rules.
    trades: see `choose_discount`; empty where no hit rate may be given up.
    """

    best: dict[str, Any]
    num_epochs: int
    best_epochs: Sequence[int]
    fitted: Fitted | None = None
    trades: Sequence[Trade] = ()


def train(
    data: PreparedData,
    config: TrainingConfig,
    run: Path,
    *,
    observer: Observer,
    start_tracker: StartTracker = TensorBoard,
    processes: Processes = ALONE,
) -> Outcome:
    """Train on `data.train` until validation stops getting better; `run` then holds the best weights.

    Goes on from the checkpoint in `run` where there is one: see `run_folder.start_run`. Of several processes, all of
    which call this, the first validates and writes.

    Raises:
        RunError: no user can validate or teach, no CUDA device where one is asked for, or a loss that is not finite.
    """
    cases = validation_cases(data, config.validation_cases, config.seed)

    def measure(model: SequenceModel) -> dict[str, float]:
        return validate(model, data, cases)

    inner = inner_hold_out(data, config)
    interactions = inner.left if inner else data.train
    members = [config.with_values({"seed": seed}) for seed in member_seeds(config)]
    outcome = _members(data, interactions, members, run, BEST_FILE, measure, observer, start_tracker, processes)
    if not processes.is_first:
        return outcome
    attention = read_attention(run, BEST_FILE, config, data.num_items).to(training_device(config.device))
    some_cases = validation_cases(data, min(config.validation_cases, FUSION_CASES), config.seed)
    model = FusedModel(attention, None, 0.0)
    if config.followers:
        many_cases = validation_cases(data, RERANKER_CASES, config.seed)
        fitted = fit_fusion(attention, data, config, inner, many_cases, some_cases)
        model = fitted.model
        outcome = replace(outcome, fitted=fitted)
    write_fusion(run, model)
    if config.tail_budget > 0:
        trades = choose_discount(ModelScorer(model), data, cases, config.tail_budget)
        write_trades(run, trades)
        outcome = replace(outcome, trades=trades)
    return outcome


def refit(
    data: PreparedData,
    config: TrainingConfig,
    run: Path,
    *,
    num_epochs: Sequence[int],
    observer: Observer,
    start_tracker: StartTracker = TensorBoard,
    processes: Processes = ALONE,
) -> Outcome:
    """Train once more on everything, validation and test items included, every member for its `num_epochs`: for
    shipping, never for measuring.
    """
    members = [
        config.with_values({"seed": seed, "max_epochs": epochs})
        for seed, epochs in zip(member_seeds(config), num_epochs, strict=True)
    ]
    folder = run / REFIT_FOLDER
    outcome = _members(
        data, data.everything, members, folder, REFIT_WEIGHTS_FILE, None, observer, start_tracker, processes
    )
    if not processes.is_first:
        return outcome
    measured = read_fusion(run, read_attention(run, BEST_FILE, config, data.num_items))
    attention = read_attention(folder, REFIT_WEIGHTS_FILE, config, data.num_items)
    write_fusion(folder, refit_fusion(measured, attention, data, config))
    return outcome


def member_seeds(config: TrainingConfig) -> list[int]:
    """The first is the configuration's own, the others are such as no other run is likely to have."""
    return [config.seed + SEED_STEP * member for member in range(config.members)]


def _members(
    data: PreparedData,
    interactions: Interactions,
    members: Sequence[TrainingConfig],
    folder: Path,
    weights_file: str,
    measure: Callable[[SequenceModel], dict[str, float]] | None,
    observer: Observer,
    start_tracker: StartTracker,
    processes: Processes,
) -> Outcome:
    """`_epochs` of every member, the first, whose outcome it is, last."""
    best_epochs: list[int] = []
    for member, own in reversed(list(enumerate(members, start=1))):
        observer.on_member(member, len(members))
        of_member = member_folder(folder, member)
        history = _epochs(data, interactions, own, of_member, weights_file, measure, observer, start_tracker, processes)
        best_epochs.insert(0, int(_best(history)["epoch"]))
    return Outcome(_best(history), len(history), best_epochs)


def _epochs(
    data: PreparedData,
    interactions: Interactions,
    config: TrainingConfig,
    folder: Path,
    weights_file: str,
    measure: Callable[[SequenceModel], dict[str, float]] | None,
    observer: Observer,
    start_tracker: StartTracker,
    processes: Processes,
) -> list[dict[str, Any]]:
    """The record of every epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (interactions.lengths >= 2).any():
        raise RunError("nothing can be learnt: no user has two events in the training part")
    learner = Learner(config, data, interactions, processes)
    history: list[dict[str, Any]] = []
    checkpoint = folder / CHECKPOINT_FILE
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        learner.load_state(state)
        history = read_history(folder)[: state["epoch"]]
    tracker = (start_tracker if processes.is_first else Nothing)(folder, asdict(config), len(history) + 1)
    is_complete = False
    try:
        while not _is_finished(history, config, validates=measure is not None):
            epoch = len(history) + 1
            record = _train_epoch(learner, interactions, epoch, observer, by_time=data.asks_by_time)
            model = learner.averaged_model()
            if processes.is_first and measure:
                record |= measure(model)
            record = processes.agreed(record)
            history.append(record)
            if processes.is_first:
                # In this order: killed in between, the epoch is trained again and writes the same once more.
                if _best(history) is record if measure else epoch == config.max_epochs:
                    save_tensors(folder / weights_file, model.state_dict())
                write_history(folder, history)
                save_tensors(checkpoint, {**learner.state(), "epoch": epoch})
            tracker.log(epoch, record)
            observer.on_epoch(record, _best(history))
        is_complete = True
    finally:
        tracker.finish(is_complete=is_complete)
    return history


def _train_epoch(
    learner: Learner, interactions: Interactions, epoch: int, observer: Observer, *, by_time: bool
) -> dict[str, Any]:
    config = learner.config
    started = time.perf_counter()
    learner.begin_epoch(epoch)
    groups = _groups(
        epoch_batches(
            interactions,
            max_length=config.max_length,
            batch_tokens=config.batch_tokens,
            seed=config.seed,
            epoch=epoch,
            by_time=by_time,
        ),
        config.accumulation,
    )
    total, num_targets, num_own, learning_rate = 0.0, 0, 0, learner.learning_rate
    for group in groups:
        parts = [learner.processes.part_of(batch) for batch in group]
        num_of_step = sum(int(np.count_nonzero(batch.targets_BL)) for batch in group)
        for part in parts:
            size = int(np.count_nonzero(part.targets_BL))
            if size == 0:
                continue
            total += size * learner.backward(part, share=size / num_of_step)
            num_own += size
            observer.on_batch(epoch, size * learner.processes.count, total / num_own)
        num_targets += num_of_step
        learning_rate = learner.learning_rate
        learner.step()
    loss = learner.processes.sum(total, learner.device) / num_targets
    seconds = time.perf_counter() - started
    return {"epoch": epoch, "loss": loss, "learning_rate": learning_rate, "seconds": round(seconds, 3)}


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches in groups of `size`, the last one smaller where they run out."""
    while group := list(itertools.islice(batches, size)):
        yield group


def _is_finished(history: Sequence[dict[str, Any]], config: TrainingConfig, *, validates: bool) -> bool:
    if not history or len(history) >= config.max_epochs:
        return bool(history)
    return validates and len(history) - int(_best(history)["epoch"]) >= config.patience


def _best(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first of the epochs with the highest validation metric; the last epoch where nothing validates."""
    if WATCHED_METRIC not in history[-1]:
        return history[-1]
    return max(history, key=lambda record: float(record[WATCHED_METRIC]))


def validation_cases(data: PreparedData, at_most: int, seed: int) -> Cases:
    cases = data.cases("validation")
    if len(cases) == 0:
        raise RunError("the prepared data have no validation case: no user has three events or more")
    if len(cases) <= at_most:
        return cases
    rng = np.random.default_rng(seed)
    return cases.chosen(np.sort(rng.choice(len(cases), at_most, replace=False)))
