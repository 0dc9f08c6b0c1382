"""The contract between training and serving: what a version folder says about itself, and the proof that it is whole.

`model_artifacts/README.md` explains the format field by field.
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import ArtifactError

FORMAT_VERSION = 2
READABLE_FORMATS = (1, 2)
MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "model.onnx"
VOCABULARY_FILE = "vocabulary.json"
ATTRIBUTES_FILE = "attributes.jsonl"
POPULARITY_FILE = "popularity.npy"
ATTRIBUTE_VECTORS_FILE = "attribute_vectors.npy"
ATTRIBUTE_VALUES_FILE = "attribute_values.json"
INDEX_FILE = "item_index.faiss"
"""There where the catalogue is so large that an index of its vectors pays; see `app.ranking.index`."""
TABLE_FILES = {
    "item_vectors": "item_vectors.npy",
    "rule_items": "rule_items.npy",
    "rule_weights": "rule_weights.npy",
    "item_statistics": "item_statistics.npy",
}
"""Graph inputs that are tables by item index, read from files beside the graph."""

GraphInput = Literal[
    "items",
    "k",
    "adjust",
    "item_vectors",
    "rule_items",
    "rule_weights",
    "item_statistics",
    "timestamps_ms",
    "event_types",
    "target_type",
]
GraphOutput = Literal["item_indices", "scores", "states"]
VERSION_PATTERN = re.compile(r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


EventUse = Literal["sequence", "count", "negative"]
"""An event enters the sequence that the model reads, is only logged, or takes its item out of recommendations."""


class EventType(_Frozen):
    """How one type of event is used. `index` is what the graph's `event_types` input carries.

    threshold: an event whose `value` is lower, or that has none, does not enter the sequence all the same.
    hides_days: above 0, an event takes its item out of the user's recommendations for so long; such a type does not
        enter the sequence.
    """

    index: int = Field(ge=0, le=255)
    enters_sequence: bool = True
    weight: float = Field(1.0, ge=0)
    threshold: float | None = Field(None, allow_inf_nan=False)
    hides_days: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _enters_or_hides(self) -> "EventType":
        if self.enters_sequence and self.hides_days:
            raise ValueError("an event that enters the sequence cannot hide its item")
        return self

    def use_of(self, value: float | None) -> EventUse:
        """What becomes of an event of this type that carries this value."""
        if self.hides_days > 0:
            return "negative"
        if self.enters_sequence and (self.threshold is None or (value is not None and value >= self.threshold)):
            return "sequence"
        return "count"


DEFAULT_EVENT_TYPES: dict[str, EventType] = {
    "interaction": EventType(index=1),
    "impression": EventType(index=2, enters_sequence=False),
    "dismiss": EventType(index=3, enters_sequence=False, hides_days=30),
}
"""In force while no artifact says otherwise. A type outside the map enters the sequence with index 0 and weight 1."""


class Graph(_Frozen):
    """Named inputs and outputs of `model.onnx`. B rows, L columns, V = items + 1, D numbers an item, N rules an item.

    inputs: `items` int64 (B, L), oldest first, 0 after the newest item; `k` int64 (1,); `adjust` float32 (B, V); from
    format 2 on the tables of `TABLE_FILES`: `item_vectors` float32 (V, D) and, where the model is mixed with rules,
    `rule_items` int32 (V, N) and `rule_weights` float32 (V, N), where its best are re-ranked `item_statistics`
    float32 (V, 2), log(1 + events) and how late in histories the item comes, or (V, 3), and how often people come back
    to it; where declared `timestamps_ms` and `event_types`, int64 (B, L), 0 where `items` is 0, and `target_type` int64
    (B,), 0 for any type.
    outputs: `item_indices` int64 (B, k) and `scores` float32 (B, k), by falling score, equal scores by rising index;
    from format 2 on `states` float32 (B, D), whose inner products with the item vectors are the attention's scores.
    """

    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...] = ("item_indices", "scores", "states")

    @model_validator(mode="after")
    def _has_what_serving_needs(self) -> "Graph":
        for kind, names, needed in (
            ("inputs", self.inputs, {"items", "k", "adjust"}),
            ("outputs", self.outputs, {"item_indices", "scores"}),
        ):
            missing = needed - set(names)
            if missing:
                raise ValueError(f"{kind} lack {sorted(missing)}")
        if ("rule_items" in self.inputs) != ("rule_weights" in self.inputs):
            raise ValueError("rule_items and rule_weights belong together")
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """Those of the inputs that are read from files."""
        return tuple(name for name in self.inputs if name in TABLE_FILES)


class ReferenceCase(_Frozen):
    """One synthetic history and the ranking that the trained model gave for it, with nothing hidden."""

    items: tuple[int, ...]
    timestamps_ms: tuple[int, ...]
    event_types: tuple[int, ...]
    target_type: int = 0
    item_indices: tuple[int, ...]
    scores: tuple[float, ...]


class Metrics(_Frozen):
    """Offline results with the protocol they were measured in; keys like `ndcg@10`."""

    protocol: dict[str, Any]
    model: dict[str, float]
    baselines: dict[str, dict[str, float]]


class Calibration(_Frozen):
    """Probability = 1 / (1 + exp(−(slope · log share + intercept))); see `app.ranking.calibration`.

    expected_error: the expected calibration error on the test part.
    """

    slope: float = Field(allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)
    expected_error: float = Field(ge=0, le=1)


class Manifest(_Frozen):
    """`manifest.json`: the only place where serving learns facts about the model."""

    format_version: int
    model_version: Annotated[str, Field(pattern=VERSION_PATTERN.pattern)]
    created_at: str
    git_commit: str | None
    num_items: int = Field(ge=1)
    max_length: int = Field(ge=1)
    attention_length: int | None = Field(None, ge=1)
    graph: Graph
    event_types: dict[str, EventType]
    target_event_types: tuple[str, ...] = ()
    exclude_seen: bool
    time_use: Literal["none", "intervals"]
    popularity_discount: float = Field(0.0, ge=0, lt=math.inf)
    calibration: Calibration | None = None
    model: dict[str, Any]
    preprocessing: dict[str, Any]
    training: dict[str, Any]
    refit: bool
    data_fingerprint: str
    metrics: Metrics | None
    reference_cases: tuple[ReferenceCase, ...] = Field(min_length=1)
    score_tolerance: float = Field(gt=0, lt=math.inf)
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _has_what_its_format_needs(self) -> "Manifest":
        if self.attention_length is not None and self.attention_length > self.max_length:
            raise ValueError(f"attention_length {self.attention_length} is more than max_length {self.max_length}")
        if self.format_version == 2 and not ("item_vectors" in self.graph.inputs and "states" in self.graph.outputs):
            raise ValueError("a graph of format 2 has the input item_vectors and the output states")
        unknown = sorted(set(self.target_event_types) - self.event_types.keys())
        if unknown:
            raise ValueError(f"target_event_types {unknown} are not in event_types")
        if self.target_event_types and "target_type" not in self.graph.inputs:
            raise ValueError("target_event_types belong to a graph with the input target_type")
        return self


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version folder, checked against the format.

    Raises:
        ArtifactError: no manifest, an unreadable one, a format that this service does not read, or a folder whose
            name is not the version.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); export the version again") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ArtifactError(
            f"{path} is not a manifest of format {' or '.join(map(str, READABLE_FORMATS))}: {place}: {first['msg']}"
        ) from error
    if manifest.format_version not in READABLE_FORMATS:
        raise ArtifactError(
            f"{path} has format_version {manifest.format_version}; this service reads {list(READABLE_FORMATS)}: "
            "export with a matching release"
        )
    if manifest.model_version != folder.name:
        raise ArtifactError(f"{path} says model_version {manifest.model_version!r} but its folder is {folder.name!r}")
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the sha256 that the manifest gives.

    Raises:
        ArtifactError: a required file is not listed, or a listed one is missing or has other content.
    """
    tables = {TABLE_FILES[name] for name in manifest.graph.tables}
    required = {GRAPH_FILE, VOCABULARY_FILE, ATTRIBUTES_FILE, POPULARITY_FILE, *tables}
    if ATTRIBUTE_VECTORS_FILE in manifest.files:
        required.add(ATTRIBUTE_VALUES_FILE)
    if not required <= manifest.files.keys():
        raise ArtifactError(f"{folder.name}: the manifest lists no {sorted(required - manifest.files.keys())}")
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink():
            raise ArtifactError(f"{folder.name}: {name!r} is not a plain file of the folder")
        if not path.is_file():
            raise ArtifactError(f"{folder.name}: {name} is missing; copy the folder again")
        found = sha256(path)
        if found != expected:
            raise ArtifactError(
                f"{folder.name}: {name} has sha256 {found[:12]}…, expected {expected[:12]}…; copy the folder again"
            )
