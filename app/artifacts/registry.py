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
    INDEX_FILE,
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
from app.background import BackgroundTask
from app.errors import ArtifactError, DeviceUnavailable
from app.ranking.approximate import ApproximateRanker, RankingChoice
from app.ranking.exact import Device, ExactRanker
from app.ranking.index import ItemIndex
from app.ranking.ranker import Ranker
from app.ranking.reference import replay_reference_cases
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


def load_model(
    folder: Path,
    *,
    history_cap: int,
    device: Device = "cpu",
    intra_op_threads: int = 1,
    ranking: RankingChoice = "auto",
) -> LiveModel:
    """Read one version and prove that it is whole: format, hashes, shapes, reference cases.

    ranking: `auto` is approximate where the version brings an index, on the CPU, and exact elsewhere.

    Raises:
        ArtifactError: with the version, what was found and what was expected.
        DeviceUnavailable: the runtime cannot run on `device`.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    needed = manifest.attention_length or manifest.max_length
    if needed > history_cap:
        raise ArtifactError(
            f"{folder.name}: the model reads {needed} events but only {history_cap} are kept per user; "
            f"set SEGUE_HISTORY_CAP to at least {needed} or train with a smaller max_length"
        )
    if manifest.max_length > history_cap:
        log.warning(
            "history_cap_is_short",
            model_version=folder.name,
            advice=f"what people come back to is looked for among {manifest.max_length} events, of which {history_cap} "
            f"are kept per user; SEGUE_HISTORY_CAP={manifest.max_length} keeps as many",
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
    has_index = INDEX_FILE in manifest.files
    if ranking == "approximate" or (ranking == "auto" and has_index and device == "cpu"):
        try:
            approximate = _approximate(ranker, folder / INDEX_FILE if has_index else None)
        except Exception as error:  # whatever faiss makes of a damaged file: it promises no type
            raise ArtifactError(f"{folder.name}: cannot be ranked approximately: {error}") from error
        # Not the exact ranker as well: onnxruntime would keep 30 MB and more for scores of a million items.
        replay_reference_cases(manifest, approximate.exhaustive())
        return LiveModel(manifest, vocabulary, attributes, popularity, approximate, attribute_vectors)
    replay_reference_cases(manifest, ranker)
    return LiveModel(manifest, vocabulary, attributes, popularity, ranker, attribute_vectors)


def _approximate(exact: ExactRanker, index_file: Path | None) -> ApproximateRanker:
    """Without an index file one is built in memory: fine for small catalogues, a minute for a million items.

    Raises what faiss raises for an index that is damaged, or ValueError for a graph of format 1.
    """
    vectors_VD = exact.item_vectors
    if vectors_VD is None:
        raise ValueError("its graph holds the item vectors itself (format 1); export the version again")
    index = ItemIndex.build(vectors_VD) if index_file is None else ItemIndex.read(index_file)
    return ApproximateRanker(exact, index)


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
        ranking: RankingChoice = "auto",
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
        self._ranking: RankingChoice = ranking
        self._event_uses = event_uses or {}
        self._prepare = prepare
        self._on_reload = on_reload
        self._clock = clock
        self._live: LiveModel | None = None
        self._problem: str | None = None
        self._failed: tuple[object, float] | None = None
        self._watcher = BackgroundTask()

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
        self._watcher.start(self._watch(), "model-registry")

    async def stop(self) -> None:
        await self._watcher.stop()

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
            ranking=self._ranking,
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
