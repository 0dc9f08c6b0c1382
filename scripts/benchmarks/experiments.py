"""Trainings that a table is made of: each is done once, kept in a folder of its own, and taken from there afterwards.

    OUTPUT/data/SET                    the prepared data
    OUTPUT/SET-FINGERPRINT/CONFIG-1/   a run folder: 8 digits of the sha256 of what the configuration changes of the
                                       defaults, the seed; beside what training leaves, `measured.json` and
                                       `ranks-CASES.npy`
    OUTPUT/SET-FINGERPRINT/baselines/  the same files of every baseline

What has measured.json is finished; a training that was interrupted goes on. A recipe or data that changed have other
digits, so nothing old is taken for new; code that changed has not: delete OUTPUT to measure everything again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.pages import machine
from scripts.training.baselines import fit_baselines
from scripts.training.cleaning import CleaningRules, Columns
from scripts.training.config import TrainingConfig
from scripts.training.datasets import DATASETS, Source, fetch, read_items, read_table
from scripts.training.evaluation import Scorer
from scripts.training.interactions import PREPARED_FILE, Cases, DataError, Interactions, PreparedData
from scripts.training.learner import training_device
from scripts.training.preparation import PreparationConfig, prepare
from scripts.training.run_folder import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    RunConfig,
    RunError,
    load_run,
    member_folder,
    read_history,
    read_run_config,
    start_run,
    write_atomically,
)
from scripts.training.scorer import evaluate_at_10
from scripts.training.trainer import Observer, train

MEASURED_FILE = "measured.json"
RANKS_FILE = "ranks-{}.npy"
BENCHMARK_RULES = CleaningRules(min_item_events=1, min_user_events=3)
"""The file as it is, but for users without a case."""
SHOP_RULES = CleaningRules(min_item_events=5, min_user_events=3)
"""What `prepare` does unless told otherwise."""
PUBLISHED_SETS = ("ml-1m", "beauty", "sports")
TrainingProgress = Callable[[str, Interactions, int], AbstractContextManager[Observer]]
"""Called with a label, what is trained on and the most epochs; gives who watches the training."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One scorer on one set of cases: metrics, NDCG@10 by the target's popularity, ranks in the order of the cases."""

    metrics: dict[str, float]
    by_popularity: dict[str, float]
    ranks: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Measured:
    """A training and what it reached on each set of cases. `num_epochs` and `seconds` are of the epochs of all members,
    validation left out; `machine` is where the last of them was trained."""

    evaluated: dict[str, Evaluated]
    num_epochs: int
    seconds: float
    machine: str


def leave_one_out(name: str) -> PreparationConfig:
    """How a set is prepared for the tables: seen items masked where published figures have them masked."""
    if name == "completejourney":
        return PreparationConfig(name, SHOP_RULES)
    return PreparationConfig(name, BENCHMARK_RULES, exclude_seen="yes" if name in PUBLISHED_SETS else "auto")


def temporal_split(name: str) -> PreparationConfig:
    """How a set is prepared where time decides what is learnt from; the tables call it `NAME-temporal`."""
    return PreparationConfig(f"{name}-temporal", SHOP_RULES, split="temporal")


def benchmark_data(name: str, data_folder: Path, output: Path, config: PreparationConfig) -> PreparedData:
    """A set prepared as `config` says: from `data_folder/NAME/interactions.parquet` (and items.parquet) where that
    exists, a public one otherwise. What was prepared alike before is taken from `output`.

    Raises:
        DataError: neither there nor public.
    """
    folder = output / "data" / config.name
    wanted = json.loads(json.dumps(asdict(config)))
    if (folder / PREPARED_FILE).is_file():
        data = PreparedData.load(folder)
        if {key: data.config.get(key) for key in wanted} == wanted:
            return data
    return prepare(benchmark_source(name, data_folder, output), config, folder)


def benchmark_source(name: str, data_folder: Path, output: Path) -> Source:
    """The files that a set is prepared from. Raises DataError: see `benchmark_data`."""
    interactions, items = data_folder / name / "interactions.parquet", data_folder / name / "items.parquet"
    columns = Columns()
    if interactions.is_file():
        known = read_items(items, columns.item) if items.is_file() else None
        return Source(read_table(interactions), known, columns, name)
    if name in DATASETS:
        downloads = output / "downloads"
        return DATASETS[name].read(fetch(DATASETS[name], downloads), downloads)
    raise DataError(
        f"{interactions} does not exist, and no public data set is named {name} (those: {', '.join(DATASETS)})"
    )


def measure_training(
    data: PreparedData,
    config: TrainingConfig,
    output: Path,
    *,
    label: str,
    cases: Mapping[str, Cases],
    progress: TrainingProgress,
    learn_from: PreparedData | None = None,
) -> Measured:
    """Train, evaluate on every set of cases, and keep what was found; or take what an earlier call kept.

    Args:
        data: whose vocabulary, mask and popularity the evaluation uses.
        config: the seed in it is part of the experiment's name.
        output: see the head of this module.
        label: of the progress.
        cases: name → cases; a name always means the same cases.
        progress: of the training.
        learn_from: trained on instead of `data`, with the same items.

    Raises:
        RunError: see `trainer.train`.
    """
    kept = kept_training(data, config, output, cases=cases, learn_from=learn_from)
    if kept is not None:
        return kept
    taught = learn_from or data
    run = train_once(taught, config, output, label=label, progress=progress)
    trained = load_run(run)
    trained.model.to(training_device(config.device))
    evaluated = {name: evaluated_by(trained.scorer, data, each) for name, each in cases.items()}
    folders = [member_folder(run, member) for member in range(1, config.members + 1)]
    epochs = [record for folder in folders for record in read_history(folder)]
    found = Measured(evaluated, len(epochs), sum(record["seconds"] for record in epochs), machine())
    write_evaluated(
        run, evaluated, {"num_epochs": found.num_epochs, "seconds": found.seconds, "machine": found.machine}
    )
    # Three quarters of the folder's size, and nothing goes on from here.
    for folder in folders:
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return found


def train_once(
    data: PreparedData, config: TrainingConfig, output: Path, *, label: str, progress: TrainingProgress
) -> Path:
    """The run folder of a training. One that was interrupted goes on; one that had ended is not done again.

    Raises:
        RunError: see `trainer.train`.
    """
    run = _run(data, config, output)
    if (run / MEASURED_FILE).is_file():  # its checkpoint is gone, and training would begin again
        return run
    start_run(run, RunConfig(config, str(data.folder), data.fingerprint, data.num_items, {}), resume=True)
    with progress(label, data.train, config.max_epochs) as observer:
        train(data, config, run, observer=observer)
    return run


def kept_training(
    data: PreparedData,
    config: TrainingConfig,
    output: Path,
    *,
    cases: Mapping[str, Cases],
    learn_from: PreparedData | None = None,
) -> Measured | None:
    """What an earlier `measure_training` with the same arguments kept; None where it has not ended.

    Raises:
        RunError: a default has changed since that training began.
    """
    run = _run(learn_from or data, config, output)
    if (run / CONFIG_FILE).is_file():
        found = read_run_config(run).training
        if found != config:
            raise RunError(f"{run} was trained as {found}, not as {config}; delete it to train it again")
    kept = read_evaluated(run, cases)
    if kept is None:
        return None
    facts = json.loads((run / MEASURED_FILE).read_bytes())
    return Measured(kept, facts["num_epochs"], facts["seconds"], facts.get("machine", "a machine that was not noted"))


def measure_seeds(
    data: PreparedData,
    config: TrainingConfig,
    output: Path,
    *,
    num_seeds: int,
    cases: Mapping[str, Cases],
    progress: TrainingProgress,
) -> list[Measured]:
    """`measure_training` with the seeds 1…num_seeds."""
    return [
        measure_training(
            data,
            config.with_values({"seed": seed}),
            output,
            label=f"{data.name}, seed {seed} of {num_seeds}: epoch",
            cases=cases,
            progress=progress,
        )
        for seed in range(1, num_seeds + 1)
    ]


def trained_on(runs: Iterable[Measured]) -> str:
    """The machines, for a page: a table may be of trainings from several."""
    return " and ".join(dict.fromkeys(run.machine for run in runs))


def measure_baselines(
    data: PreparedData, output: Path, *, cases: Mapping[str, Cases]
) -> dict[str, dict[str, Evaluated]]:
    """Baseline → set of cases → what it reached; kept like trainings."""
    folder = set_folder(data, output) / "baselines"
    found: dict[str, dict[str, Evaluated]] = {}
    scorers: dict[str, Scorer] = {}
    names = ["popularity", "markov", "item_knn", "sequential_rules"]
    if not data.exclude_seen:
        names.insert(1, "personal_popularity")
    for name in names:
        kept = read_evaluated(folder / name, cases)
        if kept is None:
            scorers = scorers or fit_baselines(data.train, data.num_items, exclude_seen=data.exclude_seen)
            kept = {part: evaluated_by(scorers[name], data, each) for part, each in cases.items()}
            write_evaluated(folder / name, kept, {})
        found[name] = kept
    return found


def set_folder(data: PreparedData, output: Path) -> Path:
    return output / f"{data.name}-{data.fingerprint[:8]}"


def _run(taught: PreparedData, config: TrainingConfig, output: Path) -> Path:
    return set_folder(taught, output) / f"{_digits(config)}-{config.seed}"


def _digits(config: TrainingConfig) -> str:
    """A key that is new to the code, at its default, leaves them as they are, so that what was trained before is found;
    what was trained with a key that is gone is refused when it is read."""
    defaults = asdict(TrainingConfig())
    values = {name: value for name, value in asdict(config).items() if name != "seed" and value != defaults[name]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def evaluated_by(scorer: Scorer, data: PreparedData, cases: Cases) -> Evaluated:
    result = evaluate_at_10(scorer, data, cases)
    by_popularity = {group.name: group.metrics.get("ndcg@10", 0.0) for group in result.by_popularity}
    return Evaluated(result.metrics, by_popularity, result.ranks)


def read_evaluated(folder: Path, cases: Mapping[str, Cases]) -> dict[str, Evaluated] | None:
    """None where something is missing."""
    if not (folder / MEASURED_FILE).is_file():
        return None
    found = json.loads((folder / MEASURED_FILE).read_bytes())["evaluated"]
    if not cases.keys() <= found.keys():
        return None
    return {
        name: Evaluated(**found[name], ranks=np.load(folder / RANKS_FILE.format(name), allow_pickle=False))
        for name in cases
    }


def write_evaluated(folder: Path, evaluated: Mapping[str, Evaluated], facts: Mapping[str, Any]) -> None:
    """measured.json comes last: where it is, the rest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in evaluated.items():
        np.save(folder / RANKS_FILE.format(name), each.ranks, allow_pickle=False)
    parts = {name: {"metrics": each.metrics, "by_popularity": each.by_popularity} for name, each in evaluated.items()}
    write_atomically(folder / MEASURED_FILE, json.dumps({"evaluated": parts, **facts}, indent=2).encode())
