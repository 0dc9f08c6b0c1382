"""What a trained attention model is mixed with: rules, their share and a re-ranker, learnt and chosen in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from scripts.training.attributes import shared_attributes
from scripts.training.config import TrainingConfig
from scripts.training.ensemble import Attention
from scripts.training.evaluation import batches_of, histories_per_batch, ndcg, ranks_in
from scripts.training.fusion import FusedModel
from scripts.training.holdout import hold_out
from scripts.training.interactions import Cases, Interactions, PreparedData
from scripts.training.reranker import Candidates, Reranker, item_statistics, learn_reranker
from scripts.training.rules import RuleTable, learn_rules
from scripts.training.scorer import model_inputs

SHARES = tuple(round(0.1 * step, 1) for step in range(10))


@dataclass(frozen=True)
class InnerHoldOut:
    """Cases cut from the training part, and what is left of it: all that the attention model has learnt from."""

    left: Interactions
    cases: Cases


@dataclass(frozen=True)
class Fitted:
    """The model, and the NDCG@10 on validation that led to it: of each share of the rules and then of each of the
    returns (none where seen items are masked), on some of the cases; of the best mixture, and of it with its candidates
    reordered (None where no re-ranker was learnt), on all of them."""

    model: FusedModel
    by_share: Mapping[float, float]
    mixture: float
    reranked: float | None
    by_returns: Mapping[float, float] = field(default_factory=dict)

    @property
    def reached(self) -> float:
        """By the model as it is."""
        return self.mixture if self.reranked is None else max(self.mixture, self.reranked)


def inner_hold_out(data: PreparedData, config: TrainingConfig) -> InnerHoldOut | None:
    """What a re-ranker learns from; None where none is asked for."""
    if not (config.rerank and config.followers):
        return None
    return InnerHoldOut(*hold_out(data.train, seed=config.seed, by_time=data.asks_by_time))


def fit_fusion(
    attention: Attention,
    data: PreparedData,
    config: TrainingConfig,
    inner: InnerHoldOut | None,
    cases: Cases,
    some_cases: Cases,
) -> Fitted:
    """Rules of `data.train`, the share of them that ranks some validation cases best, and with an inner hold-out a
    re-ranker, which stays where all the cases say that it helps: some could not tell what it adds from noise.

    The re-ranker learns from a mixture with rules of what the hold-out left; it then serves with those of all.
    """
    rules = _rules(data, data.train, config)
    model, by_share = fuse(attention, rules, data, some_cases)
    by_returns: dict[float, float] = {}
    if not data.exclude_seen:
        model, by_returns = add_returns(model, rules, by_share, data, some_cases)
    stages = [model]
    if inner is not None and len(inner.cases) and model.share:
        mixture = _mixture(model, _rules(data, inner.left, config), inner.left, None)
        reranker = fit_reranker(mixture, inner.cases, excludes_seen=data.exclude_seen, seed=config.seed)
        if reranker is not None:
            stages.append(_mixture(model, rules, data.train, reranker))
    reached = _reached_by_each(stages, data, cases)
    reranked = reached[1] if len(stages) > 1 else None
    return Fitted(stages[int(np.argmax(reached))], by_share, reached[0], reranked, by_returns)


def _mixture(chosen: FusedModel, rules: RuleTable, learnt_from: Interactions, reranker: Reranker | None) -> FusedModel:
    """As it was chosen, with other rules, the statistics of other events and a re-ranker."""
    statistics_VS = item_statistics(learnt_from, chosen.config.num_items, with_returns=chosen.returns > 0)
    return FusedModel(chosen.attention, rules, chosen.share, reranker, statistics_VS, returns=chosen.returns)


def refit_fusion(measured: FusedModel, attention: Attention, data: PreparedData, config: TrainingConfig) -> FusedModel:
    """The same mixture around attention that has learnt from everything: rules and statistics of everything, the share
    and the re-ranker as they were measured."""
    if measured.share == 0:
        return FusedModel(attention, None, 0.0)
    rules = _rules(data, data.everything, config)
    chosen = FusedModel(attention, rules, measured.share, returns=measured.returns)
    return _mixture(chosen, rules, data.everything, measured.reranker) if measured.reranker else chosen


def _rules(data: PreparedData, interactions: Interactions, config: TrainingConfig) -> RuleTable:
    return learn_rules(interactions, data.num_items, config.followers, shared_attributes(data.attributes))


def fuse(
    attention: Attention, rules: RuleTable, data: PreparedData, cases: Cases
) -> tuple[FusedModel, dict[float, float]]:
    """The mixture with the best NDCG@10 on the cases (the smallest share of equal ones), and what each share reached.

    `cases` are validation cases; `attention` and `rules` have learnt from `data.train` alone.
    """
    mixtures = [FusedModel(attention, rules if share else None, share) for share in SHARES]
    reached = dict(zip(SHARES, _reached_by_each(mixtures, data, cases), strict=True))
    return mixtures[int(np.argmax(list(reached.values())))], reached


def add_returns(
    model: FusedModel, rules: RuleTable, by_share: Mapping[float, float], data: PreparedData, cases: Cases
) -> tuple[FusedModel, dict[float, float]]:
    """The same mixture with the `returns` that have the best NDCG@10 on the cases (the fewest of equal ones); they
    need rules, the smallest share of them where validation gave them none. And what each reached."""
    share = model.share or min(each for each in SHARES if each)
    mixtures = [FusedModel(model.attention, rules, share, returns=returns) for returns in SHARES[1:]]
    found = [by_share[model.share], *_reached_by_each(mixtures, data, cases)]
    return [model, *mixtures][int(np.argmax(found))], dict(zip(SHARES, found, strict=True))


def _reached_by_each(mixtures: Sequence[FusedModel], data: PreparedData, cases: Cases) -> list[float]:
    """NDCG@10 as `validate` gives it, of mixtures around one attention, which takes most of the time and reads each
    history once for all of them; all have one `max_length`."""
    first = mixtures[0].eval()
    cases = replace(cases, asks_type=first.config.event_types)
    ranks = np.empty((len(mixtures), len(cases)), dtype=np.int64)
    with torch.inference_mode():
        item_vectors_VD = first.item_vectors()
        for chosen, histories in batches_of(cases, histories_per_batch(data.num_items)):
            items_BL, context = model_inputs(first, histories)
            states_BD = first.states(items_BL, item_vectors_VD, context)
            for mixture, ranks_of_mixture in zip(mixtures, ranks, strict=True):
                scores_BV = mixture.fused_scores(states_BD, items_BL, item_vectors_VD, mixture.rules)
                ranks_of_mixture[chosen] = ranks_in(
                    scores_BV.float().cpu().numpy(),
                    histories,
                    cases.targets[chosen],
                    num_items=data.num_items,
                    exclude_seen=data.exclude_seen,
                )
    return [float(ndcg(each, 10).mean()) for each in ranks]


def fit_reranker(mixture: FusedModel, cases: Cases, *, excludes_seen: bool, seed: int) -> Reranker | None:
    """See `learn_reranker`; `mixture` has `item_statistics`, and nothing of it has learnt from the cases."""
    size = histories_per_batch(mixture.config.num_items)
    batches = []
    with torch.inference_mode():
        item_vectors_VD = mixture.eval().item_vectors()
        for start in range(0, len(cases), size):
            rows = range(start, min(start + size, len(cases)))
            items_BL, context = model_inputs(mixture, [cases.history(row, mixture.max_length) for row in rows])
            batches.append(mixture.candidates(items_BL, item_vectors_VD, context, excludes_seen=excludes_seen))
    # A network this small learns no faster on a GPU.
    candidates = Candidates(*(torch.cat(parts).cpu() for parts in zip(*batches, strict=True)))
    targets_B = torch.from_numpy(cases.targets.astype(np.int64))
    return learn_reranker(candidates, targets_B, excludes_seen=excludes_seen, seed=seed)
