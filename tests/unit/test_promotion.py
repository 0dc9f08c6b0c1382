"""What becomes live and what is refused, on copies of the committed tiny artifact.

A worse version is the same graph with its vocabulary turned by one: whole, but every recommendation is the neighbour of
the right one.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.artifacts.manifest import MANIFEST_FILE, VOCABULARY_FILE, sha256
from app.artifacts.registry import load_model, read_current
from app.errors import ArtifactError
from scripts.training.evaluation import evaluate
from scripts.training.interactions import PreparedData
from scripts.training.promotion import GraphScorer, PromotionRefused, promote, promoted_versions
from scripts.training.synthetic import markov_sequences, write_sequences
from tests.make_tiny_artifact import NUM_ITEMS, PREDICTABILITY

TINY = Path(__file__).parents[1] / "fixtures" / "tiny_artifact"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def add_version(artifacts: Path, name: str, *, turned: bool = False, ndcg: float | None = 0.5, **changes: Any) -> str:
    """A copy of the tiny artifact under another name, with manifest fields changed."""
    folder = artifacts / name
    shutil.copytree(TINY / str(read_current(TINY)), folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    if turned:
        ids = orjson.loads((folder / VOCABULARY_FILE).read_bytes())
        (folder / VOCABULARY_FILE).write_bytes(orjson.dumps([*ids[1:], ids[0]]))
        manifest["files"][VOCABULARY_FILE] = sha256(folder / VOCABULARY_FILE)
    metrics = None if ndcg is None else {"protocol": {"split": "test"}, "model": {"ndcg@10": ndcg}, "baselines": {}}
    manifest.update({"model_version": name, "metrics": metrics, **changes})
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return name


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """Walks of other users over the same ring (the ring follows from the seed; the fingerprint from the number of
    users)."""
    sequences = markov_sequences(num_users=150, num_items=NUM_ITEMS, length=12, predictability=PREDICTABILITY, seed=7)
    return write_sequences(tmp_path / "data", sequences, name="tiny", num_items=NUM_ITEMS)


def test_first_version_becomes_live_and_history_says_when(artifacts: Path) -> None:
    add_version(artifacts, "v1")
    done = promote("v1", artifacts, now=NOON)
    assert (done.version, done.previous, done.grounds) == ("v1", None, "the first version")
    assert (artifacts / "CURRENT").read_text() == "v1\n"
    assert (artifacts / "HISTORY").read_text() == "2026-03-01T12:00:00Z v1\n"


def test_version_with_better_recorded_figures_replaces_the_live_one(artifacts: Path) -> None:
    add_version(artifacts, "v1", ndcg=0.50)
    add_version(artifacts, "v2", ndcg=0.51)
    promote("v1", artifacts)
    done = promote("v2", artifacts)
    assert done.previous == "v1"
    assert "ndcg@10 0.5100, the live v1 has 0.5000" in done.grounds
    assert read_current(artifacts) == "v2"


def test_worse_version_is_refused_unless_forced(artifacts: Path) -> None:
    add_version(artifacts, "v1", ndcg=0.50)
    add_version(artifacts, "v2", ndcg=0.49)
    promote("v1", artifacts)
    with pytest.raises(PromotionRefused, match=r"v2 is worse than the live version: ndcg@10 0\.4900, .* --force"):
        promote("v2", artifacts)
    assert read_current(artifacts) == "v1"
    assert promote("v2", artifacts, force=True).grounds == "forced, not compared"
    assert promote("v2", artifacts).grounds == "live already"
    assert promoted_versions(artifacts) == ["v1", "v2"]


def test_rollback_to_a_version_that_was_live_is_never_refused(artifacts: Path) -> None:
    add_version(artifacts, "v1", ndcg=0.1)
    add_version(artifacts, "v2", ndcg=0.9)
    promote("v1", artifacts)
    promote("v2", artifacts)
    assert promote("v1", artifacts).grounds == "was live before"
    assert promoted_versions(artifacts) == ["v1", "v2", "v1"]


def test_live_version_without_an_entry_in_history_gets_one(artifacts: Path) -> None:
    """What a crash between the two files leaves, or a CURRENT written by hand."""
    add_version(artifacts, "v1", ndcg=0.1)
    add_version(artifacts, "v2", ndcg=0.9)
    (artifacts / "CURRENT").write_text("v1\n")
    promote("v2", artifacts)
    assert promoted_versions(artifacts) == ["v1", "v2"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ndcg": None}, "v2 was exported without an evaluation"),
        ({"ndcg": 0.9, "data_fingerprint": "0" * 64}, "they were measured on different data"),
    ],
)
def test_versions_that_cannot_be_compared_are_refused_with_the_way_out(
    artifacts: Path, changes: dict[str, Any], reason: str
) -> None:
    add_version(artifacts, "v1", ndcg=0.5)
    add_version(artifacts, "v2", **changes)
    promote("v1", artifacts)
    with pytest.raises(PromotionRefused, match=f"{reason}.*--data.*--force"):
        promote("v2", artifacts)


def test_damaged_version_is_refused_even_when_forced(artifacts: Path) -> None:
    add_version(artifacts, "v1")
    (artifacts / "v1" / "popularity.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"popularity.npy has sha256"):
        promote("v1", artifacts, force=True)
    assert read_current(artifacts) is None


def test_with_data_both_graphs_are_measured_whatever_was_recorded(artifacts: Path, data: PreparedData) -> None:
    add_version(artifacts, "right", ndcg=0.1)
    add_version(artifacts, "turned", turned=True, ndcg=0.9)
    promote("right", artifacts)
    reason = r"turned is worse .* on the test cases of tiny, difference -0\.\d+ \(95 %"
    with pytest.raises(PromotionRefused, match=reason):
        promote("turned", artifacts, data=data)
    promote("turned", artifacts, force=True)
    (artifacts / "HISTORY").unlink()
    done = promote("right", artifacts, data=data)
    assert done.previous == "turned"


def test_weights_that_learnt_the_test_cases_are_compared_by_their_earlier_figures(
    artifacts: Path, data: PreparedData
) -> None:
    """The graph itself would reach 0.9 here; the figure from before the refit is 0.2, and the other graph reaches
    more."""
    add_version(artifacts, "live")
    add_version(artifacts, "refitted", refit=True, ndcg=0.2, data_fingerprint=data.fingerprint)
    promote("live", artifacts)
    with pytest.raises(PromotionRefused, match=r"refitted is worse than the live version: ndcg@10 0\.2000"):
        promote("refitted", artifacts, data=data)
    add_version(artifacts, "unmeasured", refit=True, ndcg=None, data_fingerprint=data.fingerprint)
    with pytest.raises(PromotionRefused, match="carries no figures from before"):
        promote("unmeasured", artifacts, data=data)


def test_items_that_the_artifact_does_not_know_are_never_hit(artifacts: Path, tmp_path: Path) -> None:
    """Five items more in the data than in the vocabulary: the walk over the known ring is still ranked."""
    add_version(artifacts, "v1")
    sequences = [*markov_sequences(num_users=50, num_items=NUM_ITEMS, length=10, predictability=1.0, seed=7)]
    for sequence in sequences[:10]:
        sequence[3] = NUM_ITEMS + 1
        sequence[-1] = NUM_ITEMS + 5
    data = write_sequences(tmp_path / "more", sequences, name="more", num_items=NUM_ITEMS + 5)
    result = evaluate(
        GraphScorer(load_model(artifacts / "v1", history_cap=200), data.item_ids),
        data.cases("test"),
        num_items=data.num_items,
        item_counts=data.train.item_counts(data.num_items),
        exclude_seen=False,
        cutoffs=(10,),
    )
    assert result.metrics["hit_rate@10"] == pytest.approx(40 / 50, abs=0.02)
    assert (result.ranks[:10] > NUM_ITEMS).all()
