"""Smaller artifacts than the run they come from, as far as accuracy allows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from app.ranking.ranker import ItemSequence, Ranker
from scripts.training.ensemble import Ensemble
from scripts.training.fusion import FusedModel
from scripts.training.graph import ExportError
from scripts.training.interactions import PreparedData
from scripts.training.pruning import prune
from scripts.training.run_folder import WATCHED_METRIC, Run
from scripts.training.scorer import ModelScorer, RankerScorer, metrics_at_10
from scripts.training.trainer import validation_cases

Quantize = Literal["none", "int8"]
QUANTIZE_CHOICES: tuple[Quantize, ...] = get_args(Quantize)
CASES_TO_JUDGE_BY = 3000
HISTORIES_TO_PRUNE_BY = 512


@dataclass(frozen=True)
class Smaller:
    """What is asked of an export.

    quantize   int8: see `quantization`
    prune      share of the units of every feed-forward layer that go: see `pruning`
    max_drop   largest loss of validation NDCG@10 against the run's own model, as a share of it
    """

    quantize: Quantize = "none"
    prune: float = 0.0
    max_drop: float = 0.01

    def __post_init__(self) -> None:
        if not (0 <= self.prune < 1 and 0 <= self.max_drop <= 1):
            raise ValueError(f"prune is in [0, 1) and max_drop in [0, 1], found {self.prune} and {self.max_drop}")

    @property
    def is_asked_for(self) -> bool:
        return self.quantize != "none" or self.prune > 0


AS_TRAINED = Smaller()


def pruned(model: FusedModel, share: float, histories: Sequence[ItemSequence]) -> FusedModel:
    """A copy that shares the rules' mixture and has a pruned attention model."""
    smaller = copy.deepcopy(model)
    if isinstance(model.attention, Ensemble):
        smaller.attention = Ensemble([prune(member, share, histories) for member in model.attention.models])
    else:
        smaller.attention = prune(model.attention, share, histories)
    return smaller


def histories_to_prune_by(data: PreparedData) -> list[ItemSequence]:
    """Of the training part, drawn once."""
    users = np.flatnonzero(data.train.lengths > 0)
    chosen = np.random.default_rng(0).permutation(users)[:HISTORIES_TO_PRUNE_BY]
    return [data.train.item_sequence(int(user)) for user in np.sort(chosen)]


def judge(run: Run, ranker: Ranker, smaller: Smaller) -> dict[str, Any]:
    """What the manifest keeps of a smaller artifact: how it was made, and validation NDCG@10 of the run's own model and
    of the ranker.

    Raises:
        ExportError: the ranker falls behind by more than `smaller.max_drop`.
    """
    cases = validation_cases(run.data, CASES_TO_JUDGE_BY, seed=0)
    before = metrics_at_10(ModelScorer(run.model), run.data, cases)[WATCHED_METRIC]
    scorer = RankerScorer(ranker, best=10 + int(cases.histories.lengths.max()))
    after = metrics_at_10(scorer, run.data, cases)[WATCHED_METRIC]
    if after < before * (1 - smaller.max_drop):
        raise ExportError(
            f"validation {WATCHED_METRIC} falls from {before:.4f} to {after:.4f}, by {1 - after / before:.1%}; at most "
            f"{smaller.max_drop:.1%} is allowed: prune less, leave out --quantize, or raise --max-drop"
        )
    return {"quantize": smaller.quantize, "prune": smaller.prune, "before": before, "after": after}
