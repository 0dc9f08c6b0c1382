"""A torch model, or the graph made of it, as one of the scoring functions that `evaluation` ranks with."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence, Ranker
from scripts.training.evaluation import EvaluationResult, Scorer, evaluate
from scripts.training.interactions import Cases, PreparedData
from scripts.training.model import Context, NextItemModel
from scripts.training.model_config import ContextInput


class ModelScorer:
    """`evaluation.Scorer` over the newest `max_length` items of each history."""

    def __init__(self, model: NextItemModel, target_type: int = 0) -> None:
        """target_type: index of the event type to predict, for a model that has a head for each; 0: any."""
        self._model = model
        self._target_type = target_type
        model.eval()
        with torch.inference_mode():
            self._item_vectors_VD = model.item_vectors()

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        """float32 (len(histories), num_items + 1), column = item index; column 0 is −inf."""
        if self._target_type:
            histories = [replace(history, target_type=self._target_type) for history in histories]
        with torch.inference_mode():
            items_BL, context = model_inputs(self._model, histories)
            scores_BV = self._model.next_scores(items_BL, self._item_vectors_VD, context)
            scores: NDArray[np.float32] = scores_BV.float().cpu().numpy()
        return scores


class RankerScorer:
    """The same of what the service ranks with."""

    def __init__(self, ranker: Ranker, *, best: int | None = None) -> None:
        """best: so many items get their score and all others −inf, which spares sorting the catalogue and changes no
        metric at k where `best` is at least k + the items of any history."""
        self._ranker = ranker
        self._best = ranker.num_items if best is None else min(best, ranker.num_items)

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        num_items = self._ranker.num_items
        scores_BV = np.full((len(histories), num_items + 1), -np.inf, dtype=np.float32)
        for scores_V, ranking in zip(scores_BV, self._ranker.rank(histories, self._best), strict=True):
            scores_V[ranking.item_indices] = ranking.scores
        return scores_BV


def validate(model: NextItemModel, data: PreparedData, cases: Cases) -> dict[str, float]:
    """Metrics at 10 of a model that has learnt from `data.train`: what choices during training go by.

    A model with a head for each event type is asked for the type of what came next: ranking for any type soon knows all
    that it can, and would end a training whose heads have hardly begun.
    """
    return metrics_at_10(ModelScorer(model), data, replace(cases, asks_type=model.config.event_types))


def metrics_at_10(scorer: Scorer, data: PreparedData, cases: Cases) -> dict[str, float]:
    """Without coverage."""
    return evaluate_at_10(scorer, data, cases, with_coverage=False).metrics


def evaluate_at_10(scorer: Scorer, data: PreparedData, cases: Cases, *, with_coverage: bool = True) -> EvaluationResult:
    """See `evaluate`: what a scorer that has learnt from `data.train` reaches in the first ten, as the data say."""
    return evaluate(
        scorer,
        cases,
        num_items=data.num_items,
        item_counts=data.train.item_counts(data.num_items),
        exclude_seen=data.exclude_seen,
        cutoffs=(10,),
        with_coverage=with_coverage,
    )


def model_inputs(model: NextItemModel, histories: Sequence[ItemSequence]) -> tuple[torch.Tensor, Context]:
    """Items (B, L) and what else the model reads of the newest events of each history, where the model is."""
    device = next(model.parameters()).device
    inputs = model.config.context_inputs

    def padded(name: ContextInput, rows: list[Sequence[int]]) -> torch.Tensor | None:
        return pad_items(rows, model.max_length).to(device) if name in inputs else None

    target_types_B = torch.tensor([history.target_type for history in histories], device=device)
    context = Context(
        timestamps_ms_BL=padded("timestamps_ms", [history.timestamps_ms for history in histories]),
        event_types_BL=padded("event_types", [history.event_types for history in histories]),
        target_types=target_types_B if "target_type" in inputs else None,
    )
    return pad_items([history.items for history in histories], model.max_length).to(device), context


def pad_items(rows: Sequence[Sequence[int]], max_length: int) -> torch.Tensor:
    """int64 (len(rows), longest row or 1): the newest `max_length` of each row, 0 after them."""
    newest = [np.asarray(row, dtype=np.int64)[-max_length:] for row in rows]
    padded_BL = np.zeros((len(newest), max(1, *(len(row) for row in newest), 1)), dtype=np.int64)
    for padded_L, row in zip(padded_BL, newest, strict=True):
        padded_L[: len(row)] = row
    return torch.from_numpy(padded_BL)
