"""Which model version is live: checked before it serves, swapped in one step, watched for the next."""

import asyncio
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from app.artifacts.event_types import DeclaredUse, with_uses
from app.artifacts.manifest import (
    ATTRIBUTES_FILE,
    DEFAULT_EVENT_TYPES,
    GRAPH_FILE,
    POPULARITY_FILE,
    VERSION_PATTERN,
    VOCABULARY_FILE,
    EventType,
    Manifest,
    read_manifest,
    verify_files,
)
from app.artifacts.tables import AttributeVectors, read_attribute_vectors, read_tables
from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.errors import ArtifactError, DeviceUnavailable
from app.ranking.exact import Device, ExactRanker
from app.ranking.ranker import ItemSequence, Ranker
from app.ranking.rerank import popularity_discount

CURRENT_FILE = "CURRENT"
RETRY_SECONDS = 30.0
"""A version that failed its checks is looked at again after so long, or as soon as its folder changes."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LiveModel:
    """Everything of one version that serving needs; one request uses one of these from beginning to end."""

    manifest: Manifest
    vocabulary: ItemVocabulary
    attributes: ItemAttributes
    popularity: NDArray[np.int64]
    ranker: Ranker
    attribute_vectors: AttributeVectors | None = None
    """For items that training never saw; None where the model has learnt nothing about attributes."""

    @property
    def version(self) -> str:
        return self.manifest.model_version

    def with_ranker(self, ranker: Ranker) -> "LiveModel":
        """The same version ranked by something else; what was computed of it is kept."""
        other = copy.copy(self)
        object.__setattr__(other, "ranker", ranker)
        return other

    @cached_property
    def popular_items(self) -> NDArray[np.int64]:
        """All item indices by falling popularity, ties by rising index."""
        return np.argsort(-self.popularity[1:], kind="stable") + 1

    @cached_property
    def discount(self) -> NDArray[np.float32] | None:
        """float32 (num_items + 1,), added to the model's scores: see `popularity_discount`. None where the manifest
        asks for none."""
        strength = self.manifest.popularity_discount
        return popularity_discount(self.popularity, strength) if strength else None


class ReloadListener(Protocol):
    """Told of each try to load a version: `error` is None when it went live."""

    def __call__(self, version: str, error: str | None, seconds: float) -> None: ...


def load_model(folder: Path, *, history_cap: int, device: Device = "cpu", intra_op_threads: int = 1) -> LiveModel:
    """Read one version and prove that it is whole: format, hashes, shapes, reference cases.

    Raises:
        ArtifactError: with the version, what was found and what was expected.
        DeviceUnavailable: the runtime cannot run on `device`.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    if manifest.max_length > history_cap:
        raise ArtifactError(
            f"{folder.name}: the model reads {manifest.max_length} events but only {history_cap} are kept per user; "
            f"set SEGUE_HISTORY_CAP to at least {manifest.max_length} or train with a smaller max_length"
        )
    try:
        vocabulary = ItemVocabulary.read(folder / VOCABULARY_FILE)
        attributes = ItemAttributes(folder / ATTRIBUTES_FILE)
        popularity = np.load(folder / POPULARITY_FILE, allow_pickle=False)
        ranker = ExactRanker(
            folder / GRAPH_FILE,
            inputs=manifest.graph.inputs,
            num_items=manifest.num_items,
            max_length=manifest.max_length,
            tables=read_tables(folder, manifest),
            device=device,
            intra_op_threads=intra_op_threads,
        )
        attribute_vectors = read_attribute_vectors(folder, manifest)
    except (ArtifactError, DeviceUnavailable):
        raise
    except (
        Exception
    ) as error:  # onnxruntime, orjson and numpy have no common root for "this file is not what it should be"
        raise ArtifactError(f"{folder.name}: cannot be loaded: {error}") from error
    sizes = {"vocabulary": len(vocabulary), "attributes": len(attributes), "popularity": len(popularity) - 1}
    for name, size in sizes.items():
        if size != manifest.num_items:
            raise ArtifactError(f"{folder.name}: {name} holds {size} items, the manifest says {manifest.num_items}")
    found = (sorted(ranker.graph_inputs), sorted(ranker.graph_outputs))
    declared = (sorted(manifest.graph.inputs), sorted(manifest.graph.outputs))
    if found != declared:
        raise ArtifactError(
            f"{folder.name}: the graph has inputs and outputs {found}, the manifest declares {declared}"
        )
    replay_reference_cases(manifest, ranker)
    return LiveModel(manifest, vocabulary, attributes, popularity, ranker, attribute_vectors)


def replay_reference_cases(manifest: Manifest, ranker: Ranker) -> None:
    """Rank every reference case alone and all of them as one batch.

    An item may differ from the expected one only where the two scores lie within `score_tolerance`: a tie that
    rounding decides.

    Raises:
        ArtifactError: the first case that ranks otherwise.
    """
    cases = manifest.reference_cases
    sequences = [ItemSequence(case.items, case.timestamps_ms, case.event_types, case.target_type) for case in cases]
    longest = max(len(case.item_indices) for case in cases)
    try:
        alone = [
            ranker.rank([sequence], len(case.item_indices))[0] for case, sequence in zip(cases, sequences, strict=True)
        ]
        together = ranker.rank(sequences, longest)
    except Exception as error:  # onnxruntime raises plain exceptions of several kinds when a graph cannot run
        raise ArtifactError(f"{manifest.model_version}: the graph does not run on a reference case: {error}") from error
    for way, rankings in (("alone", alone), ("in a batch", together)):
        for number, (case, ranking) in enumerate(zip(cases, rankings, strict=True)):
            expected = np.array(case.scores, dtype=np.float32)
            size = len(expected)
            found = ranking.scores[:size]
            same_scores = len(found) == size and bool(np.all(np.abs(found - expected) <= manifest.score_tolerance))
            known = dict(zip(case.item_indices, case.scores, strict=True))
            last = case.scores[-1]
            same_items = same_scores and all(
                abs(known.get(int(index), last) - float(score)) <= manifest.score_tolerance
                for index, score in zip(ranking.item_indices[:size], found, strict=True)
            )
            if not same_items:
                raise ArtifactError(
                    f"{manifest.model_version}: reference case {number} ranked {way} gives items "
                    f"{ranking.item_indices[:5].tolist()} with scores {found[:5].tolist()}, "
                    f"expected {list(case.item_indices[:5])} with {expected[:5].tolist()} "
                    f"± {manifest.score_tolerance}"
                )


def read_current(folder: Path) -> str | None:
    """The version that `CURRENT` names, None when there is no such file.

    Raises:
        ArtifactError: the file cannot be read or holds no version name.
    """
    try:
        version = (folder / CURRENT_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder / CURRENT_FILE} cannot be read: {error}") from error
    if not VERSION_PATTERN.match(version):
        raise ArtifactError(f"{folder / CURRENT_FILE} must hold one line with a version name, found {version[:80]!r}")
    return version


class ModelRegistry:
    """Holds the live model and follows `CURRENT`; a version that fails its checks never replaces one that works."""

    def __init__(
        self,
        folder: Path,
        *,
        history_cap: int,
        reload_seconds: float,
        device: Device = "cpu",
        intra_op_threads: int = 1,
        event_uses: Mapping[str, DeclaredUse] | None = None,
        prepare: Callable[[LiveModel], None] | None = None,
        on_reload: ReloadListener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`event_uses` stand above what a version's manifest says of event types. `prepare` is called with a version
        that passed its checks, in the loading thread, before it goes live."""
        self._folder = folder
        self._history_cap = history_cap
        self._reload_seconds = reload_seconds
        self._device: Device = device
        self._intra_op_threads = intra_op_threads
        self._event_uses = event_uses or {}
        self._prepare = prepare
        self._on_reload = on_reload
        self._clock = clock
        self._live: LiveModel | None = None
        self._problem: str | None = None
        self._failed: tuple[object, float] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def live(self) -> LiveModel | None:
        return self._live

    @property
    def event_types(self) -> dict[str, EventType]:
        """The map in force, whether or not a model is live."""
        if self._live is not None:
            return self._live.manifest.event_types
        return with_uses(DEFAULT_EVENT_TYPES, self._event_uses)

    @property
    def problem(self) -> str | None:
        """Why the version that `CURRENT` names is not live; None when it is, or when no version was ever promoted."""
        return self._problem

    def versions(self) -> list[str]:
        """The version folders at hand, oldest name first."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if (path / "manifest.json").is_file())

    async def start(self) -> None:
        """Load what `CURRENT` names, then watch it. A missing or broken version is no reason not to start.

        Raises:
            DeviceUnavailable: the runtime lacks the configured device.
        """
        await self.refresh()
        self._watcher = asyncio.create_task(self._watch(), name="model-registry")

    async def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def refresh(self) -> None:
        """Look at `CURRENT` once and load the version that it names unless it is live already."""
        try:
            version = read_current(self._folder)
        except ArtifactError as error:
            self._problem = str(error)
            return
        if version is None:
            self._problem = (
                f"{CURRENT_FILE} is gone from {self._folder}; {self._live.version} stays live" if self._live else None
            )
            return
        if self._live is not None and self._live.version == version:
            self._problem = None
            return
        state = (version, _modified(self._folder / CURRENT_FILE), _modified(self._folder / version / "manifest.json"))
        if self._failed is not None and self._failed[0] == state and self._clock() < self._failed[1] + RETRY_SECONDS:
            return
        await self._load(version, state)

    async def _load(self, version: str, state: object) -> None:
        started = self._clock()
        try:
            model = await asyncio.to_thread(self._read, version)
        except ArtifactError as error:
            self._failed = (state, self._clock())
            self._problem = str(error)
            log.error(
                "model_refused", model_version=version, problem=self._problem, live=self._live and self._live.version
            )
        else:
            self._failed = None
            self._problem = None
            self._live = model
            log.info("model_live", model_version=version, num_items=model.manifest.num_items)
        if self._on_reload is not None:
            self._on_reload(version, self._problem, self._clock() - started)

    def _read(self, version: str) -> LiveModel:
        model = load_model(
            self._folder / version,
            history_cap=self._history_cap,
            device=self._device,
            intra_op_threads=self._intra_op_threads,
        )
        if self._event_uses:
            event_types = with_uses(model.manifest.event_types, self._event_uses)
            model = replace(model, manifest=model.manifest.model_copy(update={"event_types": event_types}))
        if self._prepare is not None:
            try:
                self._prepare(model)
            except Exception as error:  # orjson and numpy have no common root for "these are no attributes"
                raise ArtifactError(f"{version}: the catalogue cannot be made of it: {error}") from error
        return model

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._reload_seconds)
            await self.refresh()


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
