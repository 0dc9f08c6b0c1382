"""Graphs with 8-bit weights and fewer units: how near they stay, that they load, and when they are refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from app.artifacts.registry import load_model
from scripts.benchmark import main as benchmark
from scripts.export import main
from scripts.training import export
from scripts.training.graph import random_history, ranker_of
from scripts.training.quantization import quantize_graph
from scripts.training.run_folder import Run, RunConfig, load_run, start_run
from scripts.training.scorer import RankerScorer, metrics_at_10
from scripts.training.smaller import Smaller
from scripts.training.synthetic import markov_sequences, write_sequences
from scripts.training.trainer import refit, train
from tests.accuracy.conftest import SMALL, SilentObserver


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that has learnt its walk: what it loses can be seen."""
    folder = tmp_path_factory.mktemp("smaller")
    sequences = markov_sequences(num_users=150, num_items=30, length=12, predictability=0.9, seed=1)
    data = write_sequences(folder / "data", sequences, name="markov", num_items=30)
    config = SMALL.with_values({"max_epochs": 6, "dim": 64, "max_length": 10, "followers": 5})
    start_run(folder / "run", RunConfig(config, str(data.folder), data.fingerprint, 30, {}), resume=False)
    train(data, config, folder / "run", observer=SilentObserver())
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def plain(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version that is exported without being asked for anything."""
    artifacts = tmp_path_factory.mktemp("plain")
    assert main(["--run", str(run.folder), "--artifacts", str(artifacts)]) == 0
    (version,) = artifacts.iterdir()
    return version


def test_8_bit_weights_move_scores_by_little_and_no_row_of_a_batch_by_another(
    run: Run, plain: Path, tmp_path: Path
) -> None:
    shutil.copyfile(plain / "model.onnx", tmp_path / "int8.onnx")
    quantize_graph(tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * (plain / "model.onnx").stat().st_size
    rng = np.random.default_rng(3)
    histories = [random_history(rng, 30, length) for length in (0, 1, 4, 10, 10, 7)]
    exact = ranker_of(run.model, plain / "model.onnx").states(histories)
    ranker = ranker_of(run.model, tmp_path / "int8.onnx")
    states = ranker.states(histories)
    # 8 bits with a sign: half a step is 1/254 of the largest number of a block; a dozen products add up.
    assert 0 < np.abs(states - exact).max() < 0.05 * np.abs(exact).max()
    for history, row in zip(histories, states, strict=True):
        np.testing.assert_allclose(ranker.states([history])[0], row, rtol=1e-4, atol=1e-5)


def test_the_ranker_as_a_scorer_gives_what_the_model_gives(run: Run, plain: Path) -> None:
    rng = np.random.default_rng(3)
    histories = [random_history(rng, 30, length) for length in (1, 4, 10)]
    found = RankerScorer(ranker_of(run.model, plain / "model.onnx"))(histories)
    np.testing.assert_allclose(found, run.scorer(histories), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [["--prune", "0.25"], ["--quantize", "int8"], ["--quantize", "int8", "--prune", "0.25"]]
)
def test_a_smaller_version_loads_and_says_what_it_costs(
    run: Run, plain: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(run.folder), "--artifacts", str(tmp_path), "--max-drop", "0.1", *options]) == 0
    assert "as trained" in capsys.readouterr().out
    (version,) = tmp_path.iterdir()
    live = load_model(version, history_cap=10)
    facts = live.manifest.training["smaller"]
    assert facts["after"] >= 0.9 * facts["before"]
    assert (facts["quantize"] == "int8") == ("--quantize" in options)
    assert facts["prune"] == (0.25 if "--prune" in options else 0.0)
    assert (version / "model.onnx").stat().st_size < (plain / "model.onnx").stat().st_size
    assert "smaller" not in json.loads((plain / "manifest.json").read_text())["training"]


def test_a_refitted_version_is_judged_by_weights_that_have_not_seen_the_cases(run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    words = ["--run", str(folder), "--prune", "0.25", "--max-drop", "0.2", "--artifacts"]
    assert main([*words, str(tmp_path / "before")]) == 0
    refit(run.data, run.config.training, folder, num_epochs=[2], observer=SilentObserver())
    assert main([*words, str(tmp_path / "after")]) == 0
    before, after = (load_model(next((tmp_path / name).iterdir()), history_cap=10) for name in ("before", "after"))
    assert not before.manifest.refit
    assert after.manifest.refit
    assert after.manifest.training["smaller"] == before.manifest.training["smaller"]
    assert not np.array_equal(after.ranker.item_vectors, before.ranker.item_vectors)


def test_scores_of_the_best_alone_give_the_same_metrics(run: Run, plain: Path) -> None:
    """Histories of 11 items: the best 21 hold the first ten of what is not in them."""
    ranker, cases = ranker_of(run.model, plain / "model.onnx"), run.data.cases("test")
    assert cases.histories.lengths.max() == 11
    few, all_items = RankerScorer(ranker, best=21), RankerScorer(ranker)
    masked = dataclasses.replace(run.data, exclude_seen=True)
    assert metrics_at_10(few, masked, cases) == metrics_at_10(all_items, masked, cases)


def test_what_costs_too_much_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each layer one unit remains, and not a ten-thousandth may be lost."""
    torch.manual_seed(0)
    words = ["--run", str(run.folder), "--artifacts", str(tmp_path), "--prune", "0.999", "--max-drop", "0.0001"]
    assert main(words) == 1
    assert "at most 0.0% is allowed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_8_bit_weights_that_cost_too_much_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of good rounding no drop is to be relied on, so this one takes half of the scales for their opposite."""

    def round_badly(path: Path) -> None:
        quantize_graph(path)
        graph = onnx.load(path)
        names = {node.input[2] for node in graph.graph.node if node.op_type == "MatMulNBits"}
        rng = np.random.default_rng(0)
        for tensor in graph.graph.initializer:
            if tensor.name in names:
                scales = onnx.numpy_helper.to_array(tensor)
                signs = rng.choice([-1, 1], scales.shape).astype(scales.dtype)
                tensor.CopyFrom(onnx.numpy_helper.from_array(scales * signs, tensor.name))
        onnx.save(graph, path)

    monkeypatch.setattr(export, "quantize_graph", round_badly)
    words = ["--run", str(run.folder), "--artifacts", str(tmp_path), "--quantize", "int8"]
    assert main(words) == 1
    assert "at most 1.0% is allowed: prune less, leave out --quantize, or raise --max-drop" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--max-drop", "1"]) == 0
    facts = load_model(next(tmp_path.iterdir()), history_cap=10).manifest.training["smaller"]
    assert facts["after"] < 0.99 * facts["before"]


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prune is in \[0, 1\)"):
        Smaller(prune=1.0)
    assert Smaller(prune=0.5).is_asked_for
    assert not Smaller().is_asked_for


def test_the_benchmark_writes_both_tables(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert benchmark(["quantization", "--run", str(run.folder), "--items", "500", "--page", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert sum(line.startswith("| int8 |") for line in lines) == 2
    cells = next(line for line in lines if line.startswith("| float32 | ") and "100.0%" in line).split(" | ")
    assert float(cells[2]) == pytest.approx(float(cells[1]) + 501 * 64 * 4 / 1e6, abs=0.011)
