"""An artifact whose ranking anyone can compute by eye: the score of item i is −|i − newest item|. It is of format 1.

With `clock=True` the graph also declares `timestamps_ms` and `event_types`: the score then loses 100 for every item but
the newest where the newest timestamp is 0, and rises by the newest event type for item 1.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.artifacts.manifest import (
    ATTRIBUTES_FILE,
    GRAPH_FILE,
    POPULARITY_FILE,
    VOCABULARY_FILE,
    EventType,
    Graph,
    Manifest,
    ReferenceCase,
    sha256,
)
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary

EVENT_TYPES = {
    "view": EventType(index=1),
    "cart": EventType(index=2, weight=2.0),
    "impression": EventType(index=3, enters_sequence=False),
    "dismiss": EventType(index=4, enters_sequence=False, hides_days=30),
}


def distance_ranking(newest: int, num_items: int, k: int) -> tuple[list[int], list[float]]:
    """The expected ranking: nearest first, the smaller index on a tie."""
    order = sorted(range(1, num_items + 1), key=lambda index: (abs(index - newest), index))[:k]
    return order, [float(-abs(index - newest)) for index in order]


def write_distance_graph(path: Path, num_items: int, *, clock: bool = False) -> Graph:
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axis1": np.array([1], np.int64),
        "positions_V": np.arange(num_items + 1, dtype=np.int64),
        "padding_V": np.array([-np.inf] + [0.0] * num_items, np.float32),
        "first_item_V": np.array([0.0, 1.0] + [0.0] * (num_items - 1), np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Greater", ["items", "zero"], ["present_BL"]),
        node("Cast", ["present_BL"], ["ones_BL"], to=TensorProto.INT64),
        node("ReduceSum", ["ones_BL", "axis1"], ["lengths_B1"], keepdims=1),
        node("Sub", ["lengths_B1", "one"], ["last_B1"]),
        node("Max", ["last_B1", "zero"], ["newest_B1"]),
        node("GatherElements", ["items", "newest_B1"], ["item_B1"], axis=1),
        node("Sub", ["positions_V", "item_B1"], ["difference_BV"]),
        node("Abs", ["difference_BV"], ["distance_BV"]),
        node("Cast", ["distance_BV"], ["distance_float_BV"], to=TensorProto.FLOAT),
        node("Neg", ["distance_float_BV"], ["nearness_BV"]),
        node("Add", ["nearness_BV", "padding_V"], ["catalogue_BV"]),
        node("Add", ["catalogue_BV", "adjust"], ["distance_scores_BV"]),
    ]
    scores, extra = "distance_scores_BV", []
    if clock:
        extra = ["timestamps_ms", "event_types"]
        nodes += [
            node("GatherElements", ["event_types", "newest_B1"], ["type_B1"], axis=1),
            node("Cast", ["type_B1"], ["type_float_B1"], to=TensorProto.FLOAT),
            node("Mul", ["type_float_B1", "first_item_V"], ["bonus_BV"]),
            node("GatherElements", ["timestamps_ms", "newest_B1"], ["time_B1"], axis=1),
            node("Equal", ["time_B1", "zero"], ["no_time_B1"]),
            node("Cast", ["no_time_B1"], ["no_time_float_B1"], to=TensorProto.FLOAT),
            node("Sub", ["bonus_BV", "no_time_float_B1"], ["clocked_BV"]),
            node("Add", ["distance_scores_BV", "clocked_BV"], ["clock_scores_BV"]),
        ]
        scores = "clock_scores_BV"
    nodes.append(node("TopK", [scores, "k"], ["scores", "item_indices"], axis=1, largest=1, sorted=1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "distance",
        [
            value("items", TensorProto.INT64, ["B", "L"]),
            value("k", TensorProto.INT64, [1]),
            value("adjust", TensorProto.FLOAT, ["B", num_items + 1]),
            *(value(name, TensorProto.INT64, ["B", "L"]) for name in extra),
        ],
        [value("item_indices", TensorProto.INT64, ["B", "K"]), value("scores", TensorProto.FLOAT, ["B", "K"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    inputs = ("items", "k", "adjust", *extra)
    return Graph(inputs=inputs, outputs=("item_indices", "scores"))  # type: ignore[arg-type]  # literals from a list


def write_distance_artifact(
    artifacts: Path,
    version: str = "distance-1",
    *,
    num_items: int = 9,
    item_ids: Sequence[str] | None = None,
    max_length: int = 5,
    exclude_seen: bool = True,
    clock: bool = False,
    expected_shift: float = 0.0,
) -> Path:
    """A complete, valid version folder; items are `i1`…; item i was bought 10·i times, so i9 is the most popular.

    `expected_shift` is added to the expected scores of the reference cases: anything but 0 makes the replay fail.
    """
    folder = artifacts / version
    folder.mkdir(parents=True)
    ids = list(item_ids) if item_ids is not None else [f"i{index}" for index in range(1, num_items + 1)]
    graph = write_distance_graph(folder / GRAPH_FILE, num_items, clock=clock)
    ItemVocabulary(ids).write(folder / VOCABULARY_FILE)
    ItemAttributes.write(
        folder / ATTRIBUTES_FILE,
        [{"title": f"Film {item_id}", "year": 1990 + index, "genres": ["Drama"]} for index, item_id in enumerate(ids)],
    )
    np.save(folder / POPULARITY_FILE, np.arange(num_items + 1, dtype=np.int64) * 10)
    cases = []
    for history in ((3,), (1, num_items), (2, 4, 5)):
        order, scores = distance_ranking(history[-1], num_items, 4)
        cases.append(
            ReferenceCase(
                items=history,
                timestamps_ms=tuple(range(1, len(history) + 1)),
                event_types=(0,) * len(history),
                item_indices=tuple(order),
                scores=tuple(score + expected_shift for score in scores),
            )
        )
    manifest = Manifest(
        format_version=1,
        model_version=version,
        created_at="2026-01-01T00:00:00Z",
        git_commit=None,
        num_items=num_items,
        max_length=max_length,
        graph=graph,
        event_types=EVENT_TYPES,
        exclude_seen=exclude_seen,
        time_use="intervals" if clock else "none",
        model={},
        preprocessing={},
        training={},
        refit=False,
        data_fingerprint="0" * 64,
        metrics=None,
        reference_cases=tuple(cases),
        score_tolerance=1e-4,
        files={name: sha256(folder / name) for name in (GRAPH_FILE, VOCABULARY_FILE, ATTRIBUTES_FILE, POPULARITY_FILE)},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1))
    return folder


def promote(artifacts: Path, version: str) -> None:
    """In one step, as the command does it: a running service never reads half a pointer."""
    partial = artifacts / "CURRENT.partial"
    partial.write_text(version + "\n")
    partial.replace(artifacts / "CURRENT")


def write_live_distance_artifact(artifacts: Path) -> None:
    """The default version, `distance-1`, written and promoted."""
    promote(artifacts, write_distance_artifact(artifacts).name)
