"""`python -m scripts.evaluate` on a run that trained for a moment."""

import json
from pathlib import Path

import pytest

from scripts.evaluate import main
from scripts.training.run_folder import RunConfig, start_run
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    sequences = markov_sequences(num_users=60, num_items=30, length=12, predictability=0.9, seed=1)
    data = write_sequences(folder / "data", sequences, name="markov", num_items=30)
    config = SMALL.with_values({"max_epochs": 2})
    run = folder / "runs" / "small"
    start_run(run, RunConfig(config, str(folder / "data"), data.fingerprint, data.num_items, {}), resume=False)
    train(data, config, run, observer=SilentObserver())
    return run


def test_json_on_stdout_is_what_the_run_folder_keeps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(run), "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "evaluation.json").read_text())
    assert printed["protocol"]["part"] == "test"
    assert {"hit_rate@10", "ndcg@10", "mrr@10", "coverage@10"} <= printed["model"].keys()
    assert printed["baselines"].keys() == {
        "popularity",
        "personal_popularity",
        "markov",
        "item_knn",
        "sequential_rules",
    }
    page = (run / "report.html").read_text()
    assert "small" in page
    calibration = printed["calibration"]
    assert calibration["num_pairs"] == 60 * 10  # ten items of each case
    assert 0 <= calibration["expected_error"] < calibration["error_of_shares"] <= 1
    assert f"{calibration['expected_error']:.4f}" in page


def test_the_table_ends_with_the_path_of_the_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(run), "--split", "validation", "--history-cap", "5", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(run / "report.html")
    assert lines[0].startswith("markov, validation: 60 cases")
    assert "as served: the newest 5 events" in lines
    assert "calibration" not in json.loads((run / "evaluation.json").read_text())  # fitted on what would judge it


def test_a_folder_without_a_run_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(tmp_path), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith(f"evaluate: {tmp_path} holds no config.json")
