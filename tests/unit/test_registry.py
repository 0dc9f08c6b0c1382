"""The registry loads what is whole, refuses what is not, and keeps the old model meanwhile."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.artifacts.manifest import ATTRIBUTES_FILE, INDEX_FILE, VOCABULARY_FILE, sha256
from app.artifacts.registry import RETRY_SECONDS, ModelRegistry, load_model
from app.errors import ArtifactError
from app.ranking.approximate import ApproximateRanker
from app.ranking.exact import ExactRanker
from app.ranking.index import ItemIndex
from tests.distance_model import promote, write_distance_artifact

TINY_ARTIFACT = Path(__file__).parent.parent / "fixtures" / "tiny_artifact"


def registry(folder: Path, **options: Any) -> ModelRegistry:
    return ModelRegistry(folder, history_cap=200, reload_seconds=60, **options)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_whole_artifact_loads_and_ranks(tmp_path: Path) -> None:
    model = load_model(write_distance_artifact(tmp_path), history_cap=200)
    assert model.version == "distance-1"
    assert model.vocabulary.index_of("i4") == 4
    assert model.attributes[4] == {"title": "Film i4", "year": 1993, "genres": ["Drama"]}
    assert model.popular_items.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_artifact_that_declares_clock_and_event_types_loads(tmp_path: Path) -> None:
    assert load_model(write_distance_artifact(tmp_path, clock=True), history_cap=200).manifest.time_use == "intervals"


def truncate_graph(folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])


def graph_of_garbage_with_a_right_hash(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a graph")
    edit_manifest(folder, lambda manifest: manifest["files"].update({"model.onnx": sha256(folder / "model.onnx")}))


def vocabulary_of_another_size(folder: Path) -> None:
    (folder / VOCABULARY_FILE).write_text('["a","b"]')
    edit_manifest(
        folder, lambda manifest: manifest["files"].update({VOCABULARY_FILE: sha256(folder / VOCABULARY_FILE)})
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_graph, "model.onnx has sha256"),
        (graph_of_garbage_with_a_right_hash, "cannot be loaded"),
        (vocabulary_of_another_size, "vocabulary holds 2 items, the manifest says 9"),
        (lambda folder: (folder / ATTRIBUTES_FILE).unlink(), "attributes.jsonl is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is not a manifest of format 1"),
        (lambda folder: edit_manifest(folder, lambda m: m.update(format_version=3)), "format_version 3"),
        (lambda folder: edit_manifest(folder, lambda m: m.update(model_version="other")), "its folder is 'distance-1'"),
        (lambda folder: edit_manifest(folder, lambda m: m["files"].pop("model.onnx")), r"lists no \['model.onnx'\]"),
        (lambda folder: edit_manifest(folder, lambda m: m["files"].update({"../x": "0" * 64})), "not a plain file"),
        (
            lambda folder: edit_manifest(folder, lambda m: m["graph"]["inputs"].append("timestamps_ms")),
            "the manifest declares",
        ),
        (lambda folder: edit_manifest(folder, lambda m: m.update(max_length=201)), "SEGUE_HISTORY_CAP to at least 201"),
        (
            lambda folder: edit_manifest(folder, lambda m: m.update(target_event_types=["lease"])),
            r"target_event_types \['lease'\] are not in event_types",
        ),
        (
            lambda folder: edit_manifest(folder, lambda m: m.update(target_event_types=["view"])),
            "a graph with the input target_type",
        ),
    ],
)
def test_damaged_artifact_is_refused_with_the_reason(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = write_distance_artifact(tmp_path)
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        load_model(folder, history_cap=200)


def test_graph_that_ranks_otherwise_than_the_trained_model_is_refused(tmp_path: Path) -> None:
    folder = write_distance_artifact(tmp_path, expected_shift=0.5)
    with pytest.raises(ArtifactError, match="reference case 0 ranked alone"):
        load_model(folder, history_cap=200)


def indexed(folder: Path) -> Path:
    """A copy of the small trained artifact with an index beside its graph."""
    (source,) = (path for path in TINY_ARTIFACT.iterdir() if path.is_dir())
    copy = shutil.copytree(source, folder / source.name)
    vectors_VD = load_model(copy, history_cap=200, ranking="exact").ranker.item_vectors
    assert vectors_VD is not None
    ItemIndex.build(vectors_VD).write(copy / INDEX_FILE)
    edit_manifest(copy, lambda manifest: manifest["files"].update({INDEX_FILE: sha256(copy / INDEX_FILE)}))
    return copy


def test_index_beside_the_graph_decides_unless_the_setting_does(tmp_path: Path) -> None:
    with_index, without = indexed(tmp_path), write_distance_artifact(tmp_path)
    assert isinstance(load_model(with_index, history_cap=200).ranker, ApproximateRanker)
    assert isinstance(load_model(with_index, history_cap=200, ranking="exact").ranker, ExactRanker)
    assert isinstance(load_model(without, history_cap=200).ranker, ExactRanker)


def test_approximate_ranking_can_be_asked_of_a_model_without_index(tmp_path: Path) -> None:
    (tiny,) = (path for path in TINY_ARTIFACT.iterdir() if path.is_dir())
    assert isinstance(load_model(tiny, history_cap=200, ranking="approximate").ranker, ApproximateRanker)
    with pytest.raises(ArtifactError, match="its graph holds the item vectors itself"):
        load_model(write_distance_artifact(tmp_path), history_cap=200, ranking="approximate")


def test_damaged_index_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = indexed(tmp_path)
    (folder / INDEX_FILE).write_bytes(b"no index")
    with pytest.raises(ArtifactError, match=r"item_index\.faiss has sha256"):
        load_model(folder, history_cap=200)
    edit_manifest(folder, lambda manifest: manifest["files"].update({INDEX_FILE: sha256(folder / INDEX_FILE)}))
    with pytest.raises(ArtifactError, match=f"{folder.name}: cannot be ranked approximately"):
        load_model(folder, history_cap=200)


async def test_no_pointer_means_no_model_and_no_problem(tmp_path: Path) -> None:
    models = registry(tmp_path)
    await models.refresh()
    assert (models.live, models.problem) == (None, None)


async def test_new_version_replaces_the_old_and_the_old_can_come_back(tmp_path: Path) -> None:
    loads: list[tuple[str, str | None]] = []
    models = registry(tmp_path, on_reload=lambda version, error, _: loads.append((version, error)))
    for version in ("one", "two"):
        write_distance_artifact(tmp_path, version)
    for version in ("one", "two", "one"):
        promote(tmp_path, version)
        await models.refresh()
        assert models.live is not None
        assert (models.live.version, models.problem) == (version, None)
    assert loads == [("one", None), ("two", None), ("one", None)]
    assert models.versions() == ["one", "two"]


async def test_broken_version_leaves_the_old_one_live_and_says_why(tmp_path: Path) -> None:
    write_distance_artifact(tmp_path, "one")
    truncate_graph(write_distance_artifact(tmp_path, "two"))
    models = registry(tmp_path)
    promote(tmp_path, "one")
    await models.refresh()
    promote(tmp_path, "two")
    await models.refresh()
    assert models.live is not None
    assert models.live.version == "one"
    assert "two: model.onnx has sha256" in (models.problem or "")


async def test_version_whose_files_arrive_late_is_loaded_after_a_pause(tmp_path: Path) -> None:
    now = 0.0
    models = registry(tmp_path, clock=lambda: now)
    folder = write_distance_artifact(tmp_path, "late")
    graph = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"")
    promote(tmp_path, "late")
    await models.refresh()
    (folder / "model.onnx").write_bytes(graph)
    await models.refresh()
    assert models.live is None  # not hashed again at every look
    now = RETRY_SECONDS + 1
    await models.refresh()
    assert models.live is not None
    assert models.problem is None


async def test_pointer_that_vanishes_or_holds_garbage_keeps_the_live_model(tmp_path: Path) -> None:
    write_distance_artifact(tmp_path, "one")
    models = registry(tmp_path)
    promote(tmp_path, "one")
    await models.refresh()
    (tmp_path / "CURRENT").write_text("../../etc\n")
    await models.refresh()
    assert "version name" in (models.problem or "")
    (tmp_path / "CURRENT").unlink()
    await models.refresh()
    assert "is gone" in (models.problem or "")
    assert models.live is not None


async def test_pointer_to_a_missing_folder_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    write_distance_artifact(tmp_path, "one")
    models = registry(tmp_path)
    promote(tmp_path, "one")
    await models.refresh()
    shutil.rmtree(tmp_path / "one")
    promote(tmp_path, "gone")
    await models.refresh()
    assert models.live is not None
    assert "gone" in (models.problem or "")
