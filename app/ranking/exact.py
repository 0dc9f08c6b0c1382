"""Exact ranking: onnxruntime scores the whole catalogue and takes the top k inside the graph.

Shapes: B batch, L length, V catalogue with padding (row or column = item index), D embedding.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.errors import DeviceUnavailable
from app.ranking.ranker import ItemSequence, Ranking

_ONE = np.ones(1, dtype=np.int64)
Device = Literal["cpu", "cuda"]
PROVIDERS: Mapping[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def require_device(device: Device) -> None:
    """Raises DeviceUnavailable when this onnxruntime cannot run on `device`."""
    available = ort.get_available_providers()
    if PROVIDERS[device] not in available:
        raise DeviceUnavailable(
            f"device {device!r} needs {PROVIDERS[device]}, but this onnxruntime offers only {', '.join(available)}; "
            "for a GPU replace the package: pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )


Tables = Mapping[str, NDArray[Any]]
"""Tables by item index that the graph takes as inputs, under the names of `app.artifacts.manifest.TABLE_FILES`."""


class ExactRanker:
    """Runs a `model.onnx` whose named inputs and outputs are those of `app.artifacts.manifest.Graph`."""

    def __init__(
        self,
        graph_file: Path,
        *,
        inputs: Sequence[str],
        num_items: int,
        max_length: int,
        tables: Tables | None = None,
        device: Device = "cpu",
        intra_op_threads: int = 1,
    ) -> None:
        """tables: none for a graph that holds them itself; they are used where they lie, mapped files without a copy.

        Raises DeviceUnavailable, or whatever onnxruntime raises for a file that it cannot load.
        """
        require_device(device)
        if device == "cuda":
            ort.preload_dlls()  # CUDA's libraries may come from pip's nvidia packages, where the loader doesn't look
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; its warnings are for whoever made the graph, and no lines of JSON
        # A spinning thread takes a core from the other workers between two requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = [PROVIDERS["cpu"]]
        if device == "cuda":
            # TF32 would round scores to three digits: versions would fail the check of their reference cases. And cuDNN
            # would try out every algorithm of a convolution for each new shape, which every length of a history is.
            providers.insert(0, (PROVIDERS["cuda"], {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}))
        self._session = ort.InferenceSession(graph_file, options, providers=providers)
        if device == "cuda" and PROVIDERS["cuda"] not in self._session.get_providers():
            # onnxruntime falls back to the CPU with a log line when a CUDA library is missing.
            raise DeviceUnavailable(
                "onnxruntime has CUDAExecutionProvider but could not start it; its log names the library"
            )
        self._inputs = frozenset(inputs)
        self._max_length = max_length
        self._device: Device = device
        self._num_items = num_items
        self._tables: dict[str, NDArray[Any]] = {}
        self._table_values: dict[str, ort.OrtValue] = {}
        self._set_tables(tables or {})

    def with_tables(self, tables: Tables) -> "ExactRanker":
        """The same graph with other tables: other rules, or rows appended for items that training never saw.

        The graph is shared and nothing is loaded; a ranker that is in use goes on with the tables that it has. The
        number of items follows from `item_vectors`; rules may have fewer rows, the items behind them have none.

        Raises:
            ValueError: other tables than this ranker has, or one with too many rows.
        """
        if tables.keys() != self._tables.keys() or not tables:
            raise ValueError(f"tables {sorted(self._tables)} are expected, found {sorted(tables)}")
        other = copy.copy(self)
        other._num_items = len(tables["item_vectors"]) - 1
        other._set_tables(tables)
        return other

    def _set_tables(self, tables: Tables) -> None:
        for name, table in tables.items():
            if len(table) > self._num_items + 1:
                raise ValueError(f"{name} has {len(table)} rows, there are only {self._num_items + 1} indices")
        # Wrapped once: onnxruntime reads the memory where it is, and on a GPU the table is copied there only now. One
        # that another ranker has already, as item vectors are where only rules change, is not copied again.
        self._table_values = {
            name: self._table_values[name]
            if self._tables.get(name) is table
            else ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(table), self._device, 0)
            for name, table in tables.items()
        }
        self._tables = dict(tables)
        # A graph of format 2 adds whatever can be broadcast to the scores; one of format 1 declares the width.
        self._nothing_hidden = np.zeros((1, 1 if tables else self._num_items + 1), dtype=np.float32)

    @property
    def num_items(self) -> int:
        return self._num_items

    @property
    def max_length(self) -> int:
        """Events of a sequence that the graph is given; older ones are left out."""
        return self._max_length

    @property
    def tables(self) -> Tables:
        return self._tables

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """See `Ranker.item_vectors`; None where they are inside the graph (format 1)."""
        return self._tables.get("item_vectors")

    @property
    def graph_inputs(self) -> frozenset[str]:
        """The names that the graph itself declares."""
        return frozenset(node.name for node in self._session.get_inputs())

    @property
    def graph_outputs(self) -> frozenset[str]:
        """The names that the graph itself declares."""
        return frozenset(node.name for node in self._session.get_outputs())

    def rank(
        self, sequences: Sequence[ItemSequence], k: int, adjust_BV: NDArray[np.float32] | None = None
    ) -> list[Ranking]:
        if adjust_BV is None:
            adjust_BV = np.repeat(self._nothing_hidden, len(sequences), axis=0)
        feed: dict[str, Any] = {
            "k": np.array([min(k, self._num_items)], dtype=np.int64),
            "adjust": adjust_BV,
            **self._sequence_feed(sequences),
        }
        indices_BK, scores_BK = self._session.run(("item_indices", "scores"), feed)
        return [_eligible(indices, scores) for indices, scores in zip(indices_BK, scores_BK, strict=True)]

    def states(self, sequences: Sequence[ItemSequence]) -> NDArray[np.float32]:
        """float32 (B, D): what the item vectors are multiplied with for the attention's scores. Format 2 only."""
        # Inputs that this output does not depend on have to be given all the same.
        feed = {"k": _ONE, "adjust": np.repeat(self._nothing_hidden, len(sequences), axis=0)}
        states_BD: NDArray[np.float32]
        (states_BD,) = self._session.run(("states",), feed | self._sequence_feed(sequences))
        return states_BD

    def _sequence_feed(self, sequences: Sequence[ItemSequence]) -> dict[str, Any]:
        feed: dict[str, Any] = {"items": self._padded([sequence.items for sequence in sequences]), **self._table_values}
        if "timestamps_ms" in self._inputs:
            feed["timestamps_ms"] = self._padded([sequence.timestamps_ms for sequence in sequences])
        if "event_types" in self._inputs:
            feed["event_types"] = self._padded([sequence.event_types for sequence in sequences])
        if "target_type" in self._inputs:
            feed["target_type"] = np.array([sequence.target_type for sequence in sequences], dtype=np.int64)
        return feed

    def score(self, sequences: Sequence[ItemSequence], item_indices_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Ranker.score`. The graph ranks the whole catalogue with all other items hidden."""
        adjust_BV = np.full((len(sequences), self._num_items + 1), -np.inf, dtype=np.float32)
        adjust_BV[:, item_indices_C] = 0.0
        column_of_V = np.zeros(self._num_items + 1, dtype=np.int64)
        column_of_V[item_indices_C] = np.arange(len(item_indices_C))
        scores_BC = np.empty((len(sequences), len(item_indices_C)), dtype=np.float32)
        for row, ranking in enumerate(self.rank(sequences, len(item_indices_C), adjust_BV)):
            scores_BC[row, column_of_V[ranking.item_indices]] = ranking.scores
        return scores_BC

    def _padded(self, rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """The newest `max_length` of each row, 0 after them: (B, longest row), at least one column."""
        newest = [row[-self._max_length :] for row in rows]
        padded_BL = np.zeros((len(newest), max(1, *(len(row) for row in newest))), dtype=np.int64)
        for row_L, row in zip(padded_BL, newest, strict=True):
            row_L[: len(row)] = row
        return padded_BL


def _eligible(indices: NDArray[np.int64], scores: NDArray[np.float32]) -> Ranking:
    # Scores fall, so hidden items (−inf) are a suffix.
    if scores[-1] != -np.inf:
        return Ranking(indices, scores)
    num_eligible = int(np.count_nonzero(scores != -np.inf))
    return Ranking(indices[:num_eligible], scores[:num_eligible])
