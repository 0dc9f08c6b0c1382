"""Tuning: experiments around the automatic recipe, judged by validation alone.

A tuning folder keeps everything, so that the same call goes on where the last one stopped (one call at a time):

study.db          Optuna's study: every trial, its values and its epochs
trials/0000 …     run folders; only the best trial keeps its weights
config.toml       the best experiment so far, as `train --config` takes it

Trial 0 is the automatic recipe itself. Every other one takes the best so far and draws a few of its values anew, by a
tree-structured Parzen estimator: around a recipe that is good already, trials that change everything at once only lose.
One whose validation lags behind the median of earlier trials at the same epoch ends there.
"""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from scripts.training.config import ConfigError, TrainingConfig, config_toml
from scripts.training.interactions import PreparedData
from scripts.training.run_folder import (
    BEST_FILE,
    CHECKPOINT_FILE,
    WATCHED_METRIC,
    RunConfig,
    RunError,
    read_history,
    start_run,
    write_atomically,
)
from scripts.training.trainer import RERANKER_CASES, Observer, Outcome, train, validation_cases

STUDY_FILE = "study.db"
TRIALS_FOLDER = "trials"
TUNED_CONFIG_FILE = "config.toml"
STUDY_NAME = "tuning"
VALUES_PER_TRIAL = 3
"""So many values of the best trial so far are drawn anew."""
RANDOM_TRIALS = 6
TRIALS_BEFORE_PRUNING = 4
EPOCHS_BEFORE_PRUNING = 3
"""The first epochs say more about the learning rate than about where a trial ends."""


class TuningError(Exception):
    """A tuning that cannot start or go on as asked."""


@dataclass(frozen=True)
class Tuning:
    """Where a tuning stands; values are of the watched metric on the validation cases, None where nothing ended yet.

    The best of many trials on one set of cases looks a little better than it is: only the test part, looked at once,
    measures the gain.
    """

    automatic: float | None
    best: float | None
    best_run: Path | None
    changes: Mapping[str, tuple[Any, Any]]
    """Key → value in the automatic recipe and in the best trial, where the two differ."""
    num_ended: int
    num_pruned: int
    num_failed: int


class TuningObserver(Protocol):
    """Told how a tuning goes."""

    def on_trial(self, number: int, config: TrainingConfig, standing: Tuning, /) -> Observer:
        """A trial begins, or goes on; returns who watches its training."""
        ...

    def on_trial_end(self, number: int, outcome: str, standing: Tuning, /) -> None:
        """A trial ended, with a value or with what became of it, as text."""
        ...


class _Pruned(Exception):
    """Raised through training: the trial lags behind."""


class _OutOfTime(Exception):
    """Raised through training: the trial stays as its last checkpoint left it."""


def search_space(automatic: TrainingConfig) -> dict[str, BaseDistribution]:
    """Key of the configuration → values that a trial may take; the automatic one is always among them."""
    dim, steps, length = automatic.dim, automatic.batch_tokens, automatic.max_length
    decay = max(automatic.weight_decay, 1e-3)
    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(automatic.learning_rate / 4, automatic.learning_rate * 4, log=True),
        "dropout": FloatDistribution(max(0.0, automatic.dropout - 0.2), min(0.8, automatic.dropout + 0.2)),
        "weight_decay": FloatDistribution(min(decay / 10, automatic.weight_decay), decay * 4),
        "dim": CategoricalDistribution([each for each in (dim // 2, dim, dim * 2) if each % automatic.num_heads == 0]),
        "num_blocks": IntDistribution(max(1, automatic.num_blocks - 1), automatic.num_blocks + 1),
        "max_length": CategoricalDistribution(sorted({-(-length // 2), length, length * 2})),
        "batch_tokens": CategoricalDistribution(sorted({-(-steps // 2), steps, steps * 2})),
        "temporal": CategoricalDistribution(_including(automatic.temporal, "none", "conv", "gru")),
        "num_negatives": IntDistribution(-(-automatic.num_negatives // 4), automatic.num_negatives * 4, log=True),
    }
    # Full cross-entropy over a catalogue that the recipe found too large for it would take most of the time.
    full = ("cross_entropy",) if automatic.loss == "cross_entropy" else ()
    # gBCE is calibrated for uniform negatives.
    uniform = ("gbce",) if automatic.negatives == "uniform" and not automatic.logq_correction else ()
    space["loss"] = CategoricalDistribution(_including(automatic.loss, *full, "sampled_softmax", *uniform))
    return space


def _including(automatic: str, *others: str) -> list[str]:
    return list(dict.fromkeys([automatic, *others]))


def tune(
    data: PreparedData,
    automatic: TrainingConfig,
    folder: Path,
    *,
    max_trials: int,
    max_seconds: float | None = None,
    observer: TuningObserver,
) -> Tuning:
    """Run trials until `max_trials` have ended in this folder, earlier calls included, or the time is over.

    A trial that the time, a signal or a crash cut off goes on in the next call, from its last whole epoch.

    Args:
        data: its training part teaches, its validation part judges; the test part is not looked at.
        automatic: what `recipe.choose_recipe` chose for the data: trial 0, and the centre of the search.
        folder: see the head of this module.
        max_trials: pruned and failed ones count.
        max_seconds: of this call; checked after every epoch.
        observer: told about every trial and every epoch.

    Raises:
        TuningError: the folder holds a tuning of other data or around another recipe, or the automatic recipe itself
            cannot be trained.
    """
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    study = _open_study(data, automatic, folder)
    while _standing(study, automatic, folder).num_ended < max_trials and not _is_over(deadline):
        trial = _next_trial(study, search_space(automatic))
        try:
            config = automatic.with_values(trial.params) if trial.number else automatic
        except ConfigError as error:  # values that are right by themselves and wrong beside one another
            study.tell(trial, state=TrialState.FAIL)
            observer.on_trial_end(trial.number, str(error), _standing(study, automatic, folder))
            continue
        training = observer.on_trial(trial.number, config, _standing(study, automatic, folder))
        try:
            ending = _run_trial(study, trial, config, data, folder, deadline, training)
        except _OutOfTime:
            break
        _keep_the_best(study, automatic, folder)
        observer.on_trial_end(trial.number, ending, _standing(study, automatic, folder))
    return _standing(study, automatic, folder)


def _open_study(data: PreparedData, automatic: TrainingConfig, folder: Path) -> optuna.Study:
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY_FILE}",
        study_name=STUDY_NAME,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING, EPOCHS_BEFORE_PRUNING),
    )
    # By the number of trials: a study that goes on must not draw its first values again.
    seed = automatic.seed + 1000 * len(study.trials)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
    recipe = json.loads(json.dumps(asdict(automatic)))  # as the study gives it back: lists instead of tuples
    for name, value in (("data", data.fingerprint), ("automatic recipe", recipe)):
        if study.user_attrs.get(name, value) != value:
            raise TuningError(f"{folder} holds a tuning with another {name}; choose another output, or delete it")
        study.set_user_attr(name, value)
    if not study.trials:
        study.enqueue_trial({name: getattr(automatic, name) for name in search_space(automatic)})
    return study


def _next_trial(study: optuna.Study, space: dict[str, BaseDistribution]) -> optuna.Trial:
    """One that was cut off, or a new one."""
    for cut_off in study.get_trials(states=(TrialState.RUNNING,)):
        if cut_off.params.keys() == space.keys():
            return optuna.Trial(study, cut_off._trial_id)  # the one way to take a trial up again as it is
        study.tell(cut_off.number, state=TrialState.FAIL)  # killed while its values were drawn
    if study.get_trials(states=(TrialState.COMPLETE,)):
        study.enqueue_trial(_kept_values(study.best_params, number=len(study.trials)))
    return study.ask(space)


def _kept_values(best: Mapping[str, Any], *, number: int) -> dict[str, Any]:
    """What a trial takes over from the best one; which values it draws anew is decided by its number."""
    # Negatives are of no use to a loss over all items, and new to one that is drawn.
    names = sorted(best.keys() - ({"num_negatives"} if best["loss"] == "cross_entropy" else set()))
    drawn = set(random.Random(number).sample(names, VALUES_PER_TRIAL))
    if "loss" in drawn:
        drawn.add("num_negatives")
    return {name: value for name, value in best.items() if name not in drawn}


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    config: TrainingConfig,
    data: PreparedData,
    folder: Path,
    deadline: float | None,
    training: Observer,
) -> str:
    """Train, tell the study, and return how it ended."""
    run = _run_folder(folder, trial.number)
    reported = study.trials[trial.number].intermediate_values
    for record in read_history(run):  # of a trial that was cut off between an epoch's end and its report
        if record["epoch"] not in reported:
            trial.report(record[WATCHED_METRIC], record["epoch"])
    try:
        start_run(run, RunConfig(config, str(data.folder), data.fingerprint, data.num_items, {}), resume=True)
        outcome = train(data, config, run, observer=_Judge(trial, training, deadline))
    except _Pruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"stopped at epoch {len(read_history(run))}"
    except RunError as error:
        study.tell(trial, state=TrialState.FAIL)
        if trial.number == 0:
            raise TuningError(f"the automatic recipe cannot be trained: {error}") from error
        return str(error)
    value = served_metric(outcome)
    study.tell(trial, value)
    return f"{WATCHED_METRIC} {value:.4f}"


def served_metric(outcome: Outcome) -> float:
    """The watched metric of what the run would serve: of the best mixture with rules where there is one."""
    return float(outcome.fitted.reached if outcome.fitted else outcome.best[WATCHED_METRIC])


def num_judging_cases(data: PreparedData, config: TrainingConfig) -> int:
    """Validation cases that `served_metric` is a mean of."""
    at_most = RERANKER_CASES if config.followers else config.validation_cases
    return len(validation_cases(data, at_most, config.seed))


class _Judge:
    """Passes everything on, and ends a training that lags behind or runs out of time."""

    def __init__(self, trial: optuna.Trial, training: Observer, deadline: float | None) -> None:
        self._trial = trial
        self._training = training
        self._deadline = deadline
        self._is_judged = True

    def on_member(self, member: int, num_members: int) -> None:
        self._training.on_member(member, num_members)
        # One value per epoch can be reported: that of the first member, which comes last.
        self._is_judged = member == 1

    def on_batch(self, epoch: int, tokens: int, loss: float) -> None:
        self._training.on_batch(epoch, tokens, loss)

    def on_epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None:
        self._training.on_epoch(record, best)
        if self._is_judged:
            self._trial.report(record[WATCHED_METRIC], record["epoch"])
        # Trial 0 is what the others are compared with.
        if self._is_judged and self._trial.number and self._trial.should_prune():
            raise _Pruned
        if _is_over(self._deadline):
            raise _OutOfTime


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _run_folder(folder: Path, number: int) -> Path:
    return folder / TRIALS_FOLDER / f"{number:04d}"


def _keep_the_best(study: optuna.Study, automatic: TrainingConfig, folder: Path) -> None:
    """Write the configuration of the best trial, and drop the weights of all others that ended."""
    standing = _standing(study, automatic, folder)
    if standing.best is None:
        return
    best = automatic.with_values({name: after for name, (_, after) in standing.changes.items()})
    head = f"# Best of {standing.num_ended} trials: validation {WATCHED_METRIC} {standing.best:.4f}"
    head += f", the automatic recipe {standing.automatic:.4f}.\n" if standing.automatic is not None else ".\n"
    write_atomically(folder / TUNED_CONFIG_FILE, (head + config_toml(best)).encode())
    for trial in study.trials:
        run = _run_folder(folder, trial.number)
        if trial.state.is_finished() and run != standing.best_run:
            for name in (CHECKPOINT_FILE, BEST_FILE):
                (run / name).unlink(missing_ok=True)


def _standing(study: optuna.Study, automatic: TrainingConfig, folder: Path) -> Tuning:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = {trial.number: trial.value for trial in complete if trial.value is not None}
    number = max(values, key=lambda each: values[each], default=None)
    params = trials[number].params if number else {}
    return Tuning(
        automatic=values.get(0),
        best=None if number is None else values[number],
        best_run=None if number is None else _run_folder(folder, number),
        changes={
            name: (getattr(automatic, name), value)
            for name, value in params.items()
            if value != getattr(automatic, name)
        },
        num_ended=sum(trial.state.is_finished() for trial in trials),
        num_pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        num_failed=sum(trial.state == TrialState.FAIL for trial in trials),
    )
