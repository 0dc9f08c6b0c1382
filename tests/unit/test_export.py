"""A version folder says what it was made of, and is there whole or not at all."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.artifacts.manifest import Calibration
from app.artifacts.registry import load_model
from app.errors import ArtifactError
from app.ranking.ranker import ItemSequence
from scripts.training import export
from scripts.training.attributes import shared_attributes
from scripts.training.config import TrainingConfig
from scripts.training.export import export_run
from scripts.training.fusion import FusedModel
from scripts.training.graph import ExportError, export_graph
from scripts.training.model import SequenceModel
from scripts.training.rules import RuleTable
from scripts.training.run_folder import BEST_FILE, EVALUATION_FILE, REPORT_FILE, Run, RunConfig, RunError
from scripts.training.synthetic import write_sequences

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Untrained weights are enough to export. Users 1 2 3 4 and 2 2 5: the last two events of each are held out."""
    sequences = [np.array([1, 2, 3, 4], dtype=np.int32), np.array([2, 2, 5], dtype=np.int32)]
    attributes = [{"title": f"Film {index}"} for index in range(1, 6)]
    data = write_sequences(
        tmp_path / "data", sequences, name="five", num_items=5, attributes=attributes, exclude_seen=True
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / BEST_FILE).touch()
    config = TrainingConfig(max_length=4, dim=8, num_blocks=1)
    torch.manual_seed(0)
    model = FusedModel(SequenceModel(config.model_config(5)).eval(), None, 0)
    history = [{"epoch": 1, "ndcg@10": 0.2}, {"epoch": 2, "ndcg@10": 0.3}, {"epoch": 3, "ndcg@10": 0.3}]
    run_config = RunConfig(config, str(data.folder), data.fingerprint, 5, {})
    return Run(folder, run_config, data, model, history, refit=False)


def test_exported_version_loads_and_says_what_it_was_made_of(run: Run, tmp_path: Path) -> None:
    report: dict[str, Any] = {
        "protocol": {"split": "test"},
        "model": {"ndcg@10": 0.3},
        "baselines": {"popularity": {"ndcg@10": 0.1}},
    }
    fitted = {"slope": 0.9, "intercept": -0.5, "expected_error": 0.01}
    report["calibration"] = {**fitted, "error_of_shares": 0.03, "num_pairs": 70}
    (run.folder / EVALUATION_FILE).write_text(json.dumps(report))
    (run.folder / REPORT_FILE).write_text("<html></html>")

    folder = export_run(run, tmp_path / "artifacts", now=NOON)

    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [folder.name]
    assert folder.name.startswith("20260301T120000-")
    live = load_model(folder, history_cap=4)
    manifest = live.manifest
    assert manifest.created_at == "2026-03-01T12:00:00Z"
    assert (manifest.num_items, manifest.max_length, manifest.exclude_seen, manifest.refit) == (5, 4, True, False)
    assert manifest.training["num_epochs"] == 2, "the first of the best epochs"
    assert manifest.data_fingerprint == run.data.fingerprint
    assert manifest.metrics is not None
    assert manifest.metrics.baselines == {"popularity": {"ndcg@10": 0.1}}
    assert manifest.calibration == Calibration(**fitted)
    assert sorted(len(case.items) for case in manifest.reference_cases) == [0, 1, 2, 4]
    assert json.loads((folder / "report.json").read_text()) == report
    assert (folder / "report.html").is_file()
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert list(live.vocabulary) == ["i1", "i2", "i3", "i4", "i5"]
    assert live.attributes[3] == {"title": "Film 3"}
    assert live.popularity.tolist() == [0, 1, 2, 0, 0, 0], "events of the training part: 1 2 and 2"
    sequence = ItemSequence([5, 1], [0, 1], [1, 1])
    [ranking] = live.ranker.rank([sequence], 5)
    expected = run.scorer([sequence])[0]
    np.testing.assert_allclose(ranking.scores, np.sort(expected[1:])[::-1], atol=1e-5)


def test_tables_lie_beside_the_graph_and_are_mapped(run: Run, tmp_path: Path) -> None:
    rules = RuleTable(np.array([[0], [2], [3], [4], [5], [1]], np.int32), np.array([[0.0], *[[1.0]] * 5], np.float32))
    model = FusedModel(run.model.attention, rules, 0.5)
    folder = export_run(replace(run, model=model), tmp_path / "artifacts")
    live = load_model(folder, history_cap=4)
    assert live.manifest.format_version == 2
    assert live.manifest.graph.inputs == ("items", "k", "adjust", "item_vectors", "rule_items", "rule_weights")
    assert live.manifest.graph.outputs == ("item_indices", "scores", "states")
    assert live.ranker.item_vectors is not None
    assert isinstance(live.ranker.item_vectors, np.memmap)
    np.testing.assert_array_equal(live.ranker.item_vectors, model.item_vectors().detach().numpy())
    np.testing.assert_array_equal(np.load(folder / "rule_items.npy"), rules.items_VN)
    np.testing.assert_array_equal(np.load(folder / "rule_weights.npy"), rules.weights_VN)
    assert live.attribute_vectors is None


def test_service_may_keep_fewer_events_than_returns_are_looked_for_in(run: Run, tmp_path: Path) -> None:
    rules = RuleTable(np.array([[0], [2], [3], [4], [5], [1]], np.int32), np.array([[0.0], *[[1.0]] * 5], np.float32))
    model = FusedModel(run.model.attention, rules, 0.5, returns=0.5)
    folder = export_run(replace(run, model=model), tmp_path / "artifacts")
    live = load_model(folder, history_cap=4)
    assert (live.manifest.max_length, live.manifest.attention_length) == (500, 4)
    with pytest.raises(ArtifactError, match="the model reads 4 events but only 3 are kept per user"):
        load_model(folder, history_cap=3)


def test_vectors_of_attributes_make_the_vector_of_an_item_never_seen(run: Run, tmp_path: Path) -> None:
    attributes = [
        {"colour": "red", "size": "m"},
        {"colour": "red"},
        {"colour": "blue", "size": "m"},
        {"colour": "blue"},
    ]
    attributes.append({})
    sequences = [np.array([1, 2, 3, 4, 5], dtype=np.int32)]
    data = write_sequences(tmp_path / "shop", sequences, name="shop", num_items=5, attributes=attributes)
    config = run.config.training.with_values({"attributes": "embedding"})
    attention = SequenceModel(config.model_config(5), shared_attributes(attributes)).eval()
    with torch.no_grad():
        attention.item_embedding.weight.zero_()
    folder = export_run(replace(run, data=data, model=FusedModel(attention, None, 0)), tmp_path / "artifacts")
    live = load_model(folder, history_cap=4)
    assert live.attribute_vectors is not None
    assert live.attribute_vectors.values.labels == ("colour=blue", "colour=red", "size=m")
    table = attention.item_vectors().detach().numpy()
    for item in range(1, 6):
        np.testing.assert_allclose(live.attribute_vectors.item_vector(attributes[item - 1]), table[item], atol=1e-6)


def test_refitted_version_counts_everything_and_keeps_the_figures_of_before(run: Run, tmp_path: Path) -> None:
    folder = export_run(replace(run, refit=True), tmp_path / "artifacts")
    live = load_model(folder, history_cap=4)
    assert live.manifest.refit
    assert live.manifest.metrics is None
    assert live.popularity.tolist() == [0, 1, 3, 1, 1, 1]


def test_graph_that_ranks_otherwise_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_model(model: FusedModel, path: Path) -> None:
        torch.manual_seed(1)
        export_graph(FusedModel(SequenceModel(model.config), None, 0), path)

    monkeypatch.setattr(export, "export_graph", another_model)
    with pytest.raises(ExportError, match="a score of the graph is"):
        export_run(run, tmp_path / "artifacts")
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_evaluation_of_earlier_weights_is_refused(run: Run, tmp_path: Path) -> None:
    (run.folder / EVALUATION_FILE).write_text("{}")
    os.utime(run.folder / EVALUATION_FILE, ns=(1, 1))
    with pytest.raises(RunError, match=r"evaluation\.json is older than best\.pt"):
        export_run(run, tmp_path / "artifacts")
