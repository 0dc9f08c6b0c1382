"""One protocol, every tracker: what was logged is read back with the tracker's own tools, without a network."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.tracking import TRACKERS, StartTracker, tracker
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver

CONFIG = {"dim": 32, "loss": "gbce"}
ONE = {"loss": 2.5, "ndcg@10": 0.1}
TWO = {"loss": 2.0, "ndcg@10": 0.2}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tracker went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def read_tensorboard(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("ndcg@10")]


def read_mlflow(folder: Path) -> list[tuple[int, float]]:
    (run,) = mlflow_runs(folder)
    metrics = mlflow_client(folder).get_metric_history(run.info.run_id, "ndcg_at_10")
    latest = {metric.step: metric.value for metric in sorted(metrics, key=lambda metric: metric.timestamp)}
    return sorted(latest.items())


def mlflow_client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")


def mlflow_runs(folder: Path) -> list[Any]:
    client = mlflow_client(folder)
    return list(client.search_runs([client.get_experiment_by_name("segue").experiment_id]))


READERS = [
    pytest.param("tensorboard", read_tensorboard, id="tensorboard"),
    # MLflow's store asks SQLAlchemy for a loader that its newest release calls deprecated.
    pytest.param("mlflow", read_mlflow, id="mlflow", marks=pytest.mark.filterwarnings("ignore:The ``noload`` loader")),
]


def start(name: Any, folder: Path, config: Mapping[str, Any], first_epoch: int) -> Any:
    if name == "mlflow":
        pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    begin: StartTracker = tracker(name)
    return begin(folder, config, first_epoch)


@pytest.mark.parametrize(("name", "read"), READERS)
def test_what_is_logged_can_be_read_back(tmp_path: Path, name: str, read: Any) -> None:
    tracked = start(name, tmp_path / "run", CONFIG, 1)
    tracked.log(1, ONE)
    tracked.log(2, TWO)
    tracked.finish(is_complete=True)
    assert read(tmp_path / "run") == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_resumed_training_goes_on_in_the_same_curve(tmp_path: Path, name: str, read: Any) -> None:
    """Killed after it logged epoch 2 and before the checkpoint: epoch 2 is trained and logged again."""
    killed = start(name, tmp_path / "run", CONFIG, 1)
    killed.log(1, ONE)
    killed.log(2, {"ndcg@10": 0.9})
    killed.finish(is_complete=False)
    # TensorBoard reads its files in the order of their names: the second each was begun in, then "9" after "10".
    begun = int(time.time())
    while int(time.time()) == begun:
        time.sleep(0.02)
    resumed = start(name, tmp_path / "run", CONFIG, 2)
    resumed.log(2, TWO)
    resumed.finish(is_complete=True)
    assert read(tmp_path / "run") == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")
def test_mlflow_keeps_the_configuration_and_runs_side_by_side(tmp_path: Path) -> None:
    for name in ("first", "second"):
        start("mlflow", tmp_path / name, CONFIG, 1).finish(is_complete=name == "first")
    runs = {run.info.run_name: run for run in mlflow_runs(tmp_path / "first")}
    assert runs["first"].data.params == {"dim": "32", "loss": "gbce"}
    assert {name: run.info.status for name, run in runs.items()} == {"first": "FINISHED", "second": "KILLED"}


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader")
def test_training_tells_every_tracker(tmp_path: Path, name: Any) -> None:
    if name == "mlflow":
        pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    sequences = markov_sequences(num_users=30, num_items=20, length=8, predictability=0.9, seed=1)
    data = write_sequences(tmp_path / "data", sequences, name="walk", num_items=20)
    run = tmp_path / "runs" / "one"
    outcome = train(
        data, SMALL.with_values({"max_epochs": 2}), run, observer=SilentObserver(), start_tracker=tracker(name)
    )
    if name == "tensorboard":
        assert len(read_tensorboard(run)) == outcome.num_epochs
    elif name == "mlflow":
        assert len(read_mlflow(run)) == outcome.num_epochs
    else:
        assert not (run / "tensorboard").exists()
