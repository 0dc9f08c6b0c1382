"""Where the figures of a training go beside the run folder: three calls — start, log, finish — behind one protocol.

TensorBoard writes into the run folder. MLflow writes into the store that MLFLOW_TRACKING_URI names, by default one
SQLite file beside the run folders, so that runs can be compared; both work without a network.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from torch.utils.tensorboard import SummaryWriter

from scripts.training.run_folder import TENSORBOARD_FOLDER

TrackerName = Literal["tensorboard", "mlflow", "none"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
MLFLOW_FILE = "mlflow.db"
MLFLOW_EXPERIMENT = "segue"
RUN_TAG = "segue.run_folder"


class TrackerMissing(Exception):
    """The tracker asked for is not installed."""


class Tracker(Protocol):
    """One training that is being tracked."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """What one epoch measured."""
        ...

    def finish(self, *, is_complete: bool) -> None:
        """The training is over, or was cut off; nothing is logged afterwards."""
        ...


class StartTracker(Protocol):
    def __call__(self, folder: Path, config: Mapping[str, Any], first_epoch: int) -> Tracker:
        """Begin to track the training in a run folder, or go on before `first_epoch`: what was logged of later epochs,
        by a training that was killed, is logged again."""
        ...


class TensorBoard:
    def __init__(self, folder: Path, config: Mapping[str, Any], first_epoch: int) -> None:
        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_epoch)
        if first_epoch == 1:
            self._writer.add_text("config", "  \n".join(f"{name} = {value}" for name, value in config.items()))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def finish(self, *, is_complete: bool) -> None:  # noqa: ARG002  TensorBoard does not tell
        self._writer.close()


class MLflow:
    """Names are MLflow's: it allows no @, so `ndcg@10` becomes `ndcg_at_10`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], first_epoch: int) -> None:
        # MLflow reports its use to its makers unless told otherwise.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ModuleNotFoundError as error:
            raise TrackerMissing("MLflow is not installed; pip install 'segue[tracking]'") from error
        self._metric = Metric
        folder = folder.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent / MLFLOW_FILE}")
        with _quiet_migrations():
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(MLFLOW_EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(MLFLOW_EXPERIMENT)
        earlier = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{folder}'", max_results=1)
        if earlier and first_epoch > 1:
            self._run = earlier[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(
                experiment, tags={RUN_TAG: str(folder)}, run_name=folder.name
            ).info.run_id
            for name, value in config.items():
                self._client.log_param(self._run, name, value)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        # An epoch logged before is logged once more, at a later time: MLflow shows the latest.
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(name.replace("@", "_at_"), value, now_ms, epoch) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, *, is_complete: bool) -> None:
        self._client.set_terminated(self._run, status="FINISHED" if is_complete else "KILLED")


class Nothing:
    def __init__(self, folder: Path, config: Mapping[str, Any], first_epoch: int) -> None: ...

    def log(self, epoch: int, values: Mapping[str, float]) -> None: ...

    def finish(self, *, is_complete: bool) -> None: ...


def tracker(name: TrackerName) -> StartTracker:
    trackers: dict[TrackerName, StartTracker] = {"tensorboard": TensorBoard, "mlflow": MLflow, "none": Nothing}
    return trackers[name]


@contextmanager
def _quiet_migrations() -> Iterator[None]:
    """A new SQLite file is filled by migrations, each of which MLflow would name on stderr."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
